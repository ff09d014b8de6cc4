"""``razorlight explain``: how each layer of a run stores, what it stores, and why."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from razorlight.cli.dry_run import DryRun
from razorlight.cli.parsed_run import Options
from razorlight.cli.ways import convert, own_way
from razorlight.codecs import Dense
from razorlight.comparison import cosine, gradients
from razorlight.conversion import Line, Plan
from razorlight.memory import StepEstimate
from razorlight.memory.meter import MIB
from razorlight.patterns import without_numbers

OPTIONS: Options = {
    "--check_gradients": {
        "action": "store_true",
        "help": "run one batch dense and razor, with weights, and compare the gradients",
    },
}


@dataclass
class _Row:
    """What equal layers of equal blocks have in common."""

    count: int = 0
    dense: int = 0
    razor: int = 0
    cosines: list[float] = field(default_factory=list)


def run(args: Sequence[str]) -> None:
    """Print the layers of a run, as its configuration converts them.

    Args:
        args: the options of ``fit``, and :data:`OPTIONS`.

    Raises:
        RazorError: for a mistake in the configuration, or a network that cannot be estimated.
    """
    dry = DryRun("explain", args, OPTIONS)
    # its data and weights may be missing, which is said before anything slow
    checks = dry.settings["check_gradients"]
    real = DryRun("explain", args, OPTIONS, on_meta=False) if checks else None
    own, batch = own_way(dry), dry.batch()
    razor = deepcopy(dry.module)
    plan = convert(dry, razor, own)
    stored = {
        name: StepEstimate(module, dry.step, device=dry.device).profile(batch).stored_by
        for name, module in (("dense", dry.module), ("razor", razor))
    }
    cosines = _check_gradients(real, own) if real else {}
    print(f"{own}; MiB stored between forward and backward, estimated on {dry.device}")
    print('"nothing": what the layer reads is derived, or recorded by another layer')
    _print(dry.module, plan, stored, cosines)


def _check_gradients(real: DryRun, own: str) -> dict[str, float]:
    """By the name of each layer, the lowest cosine of its parameters' gradients to the dense ones.

    One batch of data is trained, with the run's weights.
    """
    dense, razor = real.module, deepcopy(real.module)
    convert(real, razor, own)
    batch = real.batch()
    found = [gradients(module, real.step, batch) for module in (dense, razor)]
    lowest: dict[str, float] = {}
    for name, gradient in found[0].items():
        layer = name.rpartition(".")[0]
        if gradient.any():
            one = cosine([found[1][name]], [gradient])
            lowest[layer] = min(lowest.get(layer, 1.0), one)
    return lowest


def _print(
    module: nn.Module,
    plan: Plan | None,
    stored: Mapping[str, Mapping[str | None, int]],
    cosines: Mapping[str, float],
) -> None:
    classes: dict[str | None, str] = {n: type(m).__name__ for n, m in module.named_modules()}
    lines = {line.name: line for line in plan.lines} if plan else {}
    rows: dict[tuple[str, str], _Row] = defaultdict(_Row)
    layers = dict.fromkeys([*lines, *stored["dense"], *stored["razor"]])
    for layer in layers:
        sizes = [stored[way].get(layer, 0) for way in ("dense", "razor")]
        name = "outside of the network" if layer is None else without_numbers(layer) or "(root)"
        row = rows[name, _words(lines.get(layer or ""), classes.get(layer), *sizes)]
        row.count += 1
        row.dense += sizes[0]
        row.razor += sizes[1]
        if layer is not None and layer in cosines:
            row.cosines.append(cosines[layer])
    columns = ["dense", "razor", *(["cosine"] if cosines else [])]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("how it stores, or why not")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for (name, how), row in rows.items():
        number = f" x{row.count}" if row.count > 1 else ""
        cells = [f"{size / MIB:.2f}" for size in (row.dense, row.razor)]
        cells += [f"{min(row.cosines):.4f}" if row.cosines else ""] if cosines else []
        table.add_row(f"{name}{number}", how, *cells)
    totals = [f"{sum(sizes.values()) / MIB:.2f}" for sizes in stored.values()]
    table.add_section()
    table.add_row("all", "", *totals, *([f"{min(cosines.values()):.4f}"] if cosines else []))
    Console(width=80, highlight=False).print(table)
    if plan:
        Console(width=80, highlight=False).print(plan.summary(), markup=False)
    if any(_UNKNOWN in how for _, how in rows):
        print(_REGISTER)


_UNKNOWN = "unknown, stores what torch stores"

_REGISTER = """\
A layer of unknown class stores what torch stores for the functions that its
forward calls. `razorlight.register` makes a class known (guide "Add a layer")."""


def _words(line: Line | None, layer: str | None, dense: int, razor: int) -> str:
    """How a layer stores, in a few words."""
    if line is None:
        return f"{layer}: {_UNKNOWN}" if layer and razor else ""
    if line.plan is None or not line.plan.shares or isinstance(line.plan.codec, Dense):
        return f"{line.layer}: {line.detail}"
    if dense and not razor:
        return f"{line.layer}: nothing"
    return f"{line.layer}: {line.plan.codec.words}"
