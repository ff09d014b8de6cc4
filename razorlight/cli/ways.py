"""The ways in which the run of a configuration can be trained: dense, and by recipes."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from razorlight._torch import tree_leaves
from razorlight.cli.dry_run import DryRun
from razorlight.comparison import WAYS, convert_as
from razorlight.conversion import Plan, razor_
from razorlight.errors import RazorError
from razorlight.memory import plan_within
from razorlight.memory.budget import DENSE


def own_way(dry: DryRun) -> str:
    """What the configuration says: a recipe's name as ``BackRazor.recipe_name``, or "dense"."""
    return DENSE if dry.razor is None else dry.razor.recipe_name


def ways_to_show(dry: DryRun) -> list[str]:
    """The ways that ``--recipes`` names; by default all, and that of the configuration.

    Raises:
        RazorError: for an unknown way.
    """
    known = [*dict.fromkeys([*WAYS, own_way(dry)])]
    given = dry.settings["recipes"]
    if given is None or given == "all":
        return known
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in known:
            raise RazorError(f"recipes: {name!r} is none of {', '.join(known)}")
    return names


def file_to_write(dry: DryRun, option: str) -> Path | None:
    """The path that an option gives; None if it gives none.

    Raises:
        RazorError: if the file cannot be written, which is said before any work is done.
    """
    if not (given := dry.settings[option]):
        return None
    path = Path(given)
    trial = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise RazorError(
            f"--{option}: cannot write {path} ({error.strerror}); give another"
        ) from error
    return path


def convert(dry: DryRun, module: nn.Module, way: str) -> Plan | None:
    """Convert a module as a way trains it, with the other arguments of the run's BackRazor.

    Args:
        dry: the run.
        module: a copy of the run's module. It changes in place.
        way: one of :data:`~razorlight.comparison.WAYS`, or what :func:`own_way` gives.

    Returns:
        The plan; None if nothing is converted.
    """
    razor = dry.razor
    if razor is None:
        return convert_as(module, way)
    chosen = {name: getattr(razor, name) for name in ("include", "exclude", "overrides")}
    if way != razor.recipe_name:
        return convert_as(module, way, **chosen)
    if razor.given_plan is not None:
        return razor_(module, plan=razor.given_plan)
    if razor.memory_budget is not None:
        given = dry.step, dry.batch(), dry.make_optimizer, dry.in_backward
        found = plan_within(razor.memory_budget, module, *given, device=dry.device, **chosen)
        return razor_(module, plan=found.plan) if found.plan.layers else None
    return razor_(module, razor.recipe, razor.sparsity, **chosen)


def title(how: str, dry: DryRun, batch: Any) -> str:
    """The heading of a table: the device, the batch and the precision.

    Args:
        how: "Estimated" or "Measured".
        dry: the run.
        batch: its batch.
    """
    shapes = [t.shape for t in tree_leaves(batch) if isinstance(t, Tensor)]
    precision = dry.settings["trainer"]["precision"] or "32-true"
    size = "x".join(map(str, shapes[0][1:]))
    return f"{how} on {dry.device}: batch {shapes[0][0]} of {size}, {precision}"
