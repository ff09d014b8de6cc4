"""The ways in which the run of a configuration can be trained: dense, and by recipes."""

from lightning.pytorch import LightningModule

from razorlight.cli.dry_run import DryRun
from razorlight.conversion import Plan, razor_
from razorlight.memory import plan_within
from razorlight.memory.budget import DENSE


def own_way(dry: DryRun) -> str:
    """What the configuration says: a recipe's name as ``BackRazor.recipe_name``, or "dense"."""
    return DENSE if dry.razor is None else dry.razor.recipe_name


def convert(dry: DryRun, module: LightningModule, way: str) -> Plan | None:
    """Convert a module as a recipe trains it, with the other arguments of the run's BackRazor.

    Args:
        dry: the run.
        module: a copy of the run's module. It changes in place.
        way: "dense", the name of a recipe, or what :func:`own_way` gives.

    Returns:
        The plan; None if the way is dense.
    """
    razor = dry.razor
    if way == DENSE:
        return None
    if razor is None:
        return razor_(module, way)
    chosen = {name: getattr(razor, name) for name in ("include", "exclude", "overrides")}
    if way != razor.recipe_name:
        return razor_(module, way, **chosen)
    if razor.given_plan is not None:
        return razor_(module, plan=razor.given_plan)
    if razor.memory_budget is not None:
        given = dry.step, dry.batch(), dry.make_optimizer, dry.in_backward
        found = plan_within(razor.memory_budget, module, *given, device=dry.device, **chosen)
        return razor_(module, plan=found.plan) if found.plan.layers else None
    return razor_(module, razor.recipe, razor.sparsity, **chosen)
