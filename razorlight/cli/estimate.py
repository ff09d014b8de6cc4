"""``razorlight estimate``: what a training step of a run would need, without running it."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from lightning.pytorch import LightningModule
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from razorlight._torch import tree_leaves, tree_map
from razorlight.cli.dry_run import DryRun
from razorlight.cli.parsed_run import Options
from razorlight.cli.ways import convert, file_to_write, own_way, title, ways_to_show
from razorlight.comparison import WAYS
from razorlight.errors import RazorError
from razorlight.files import replaced
from razorlight.memory import StepEstimate
from razorlight.memory.amounts import parse_bytes
from razorlight.memory.meter import MIB

OPTIONS: Options = {
    "--memory": {"type": str, "help": "find the largest batch that fits, such as in 8GiB"},
    "--recipes": {"type": str, "help": f"of {', '.join(WAYS)}: a,b,... (default: all)"},
    "--json": {"type": str, "help": "write the figures there too"},
}


@dataclass(frozen=True)
class Row:
    """What is estimated of the run, trained in one way.

    Attributes:
        name: of the way.
        stored: bytes between forward and backward.
        peak: bytes.
        peak_in_backward: bytes, if the optimizer steps within backward; None if it cannot.
        per_sample: bytes that are stored more for each sample more.
        largest_batch: the largest batch that fits into the memory that was asked for; 0 if not even
            one sample does, None if nobody asked.
    """

    name: str
    stored: int
    peak: int
    peak_in_backward: int | None
    per_sample: float
    largest_batch: int | None


def run(args: Sequence[str]) -> None:
    """Print the estimates of a run, dense and by each recipe.

    Args:
        args: the options of ``fit``, and :data:`OPTIONS`.

    Raises:
        RazorError: for a recipe, a network or an amount of memory that cannot be had.
    """
    dry = DryRun("estimate", args, OPTIONS)
    memory = parse_bytes(given) if (given := dry.settings["memory"]) else None
    names, figures = ways_to_show(dry), file_to_write(dry, "json")
    batch = dry.batch()
    modules = {name: _converted(dry, name) for name in names}
    rows = [_row(dry, name, module, batch, memory) for name, module in modules.items()]
    _print(dry, rows, batch)
    own = own_way(dry)
    if own in modules:
        estimate = _estimate(dry, modules[own], dry.in_backward)
        print(f"{own}:\n{estimate.peak(batch)}")
    if figures:
        with replaced(figures) as new:
            new.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _converted(dry: DryRun, name: str) -> LightningModule:
    module = deepcopy(dry.module)
    convert(dry, module, name)
    return module


def _row(dry: DryRun, name: str, module: LightningModule, batch: Any, memory: int | None) -> Row:
    samples = _samples(batch)
    other = samples // 2 if samples > 3 else 2 * samples

    after, within = [_estimate(dry, module, in_backward) for in_backward in (False, True)]
    own = within if dry.in_backward else after

    def peak(count: int) -> float:
        try:
            return own.memory(_of_samples(batch, count)).peak
        except RazorError:
            if count < samples:  # such as a single one, of which a BatchNorm has no statistics
                return inf
            raise

    step = after.memory(batch)
    peak_within = None if dry.obstacle_in_backward else within.memory(batch).peak
    per_sample = (step.stored - after.stored(_of_samples(batch, other))) / (samples - other)
    largest = None if memory is None else largest_batch(peak, memory, samples, other)
    return Row(name, step.stored, step.peak, peak_within, per_sample, largest)


def _estimate(dry: DryRun, module: LightningModule, in_backward: bool) -> StepEstimate:
    return StepEstimate(module, dry.step, dry.make_optimizer, in_backward, device=dry.device)


def largest_batch(peak: Callable[[int], float], memory: int, first: int, second: int) -> int:
    """A batch whose peak fits into ``memory``; 0 if no batch does.

    It is the largest one to a fiftieth.

    Args:
        peak: gives the bytes of a batch of so many samples. They grow with the number.
        memory: bytes.
        first: a number of samples to begin with.
        second: another one.
    """
    tried: dict[int, float] = {}
    guess = first
    while True:
        tried[guess] = peak(guess)
        fits = max([count for count, size in tried.items() if size <= memory], default=0)
        limit = min([count for count, size in tried.items() if size > memory], default=None)
        if limit is not None and limit - fits <= max(1, fits // 50):
            return fits
        guess = second if len(tried) == 1 else _on_line(tried, memory, limit)
        guess = max(guess, fits + 1)
        if limit is not None:
            guess = min(guess, limit - 1)


def _on_line(tried: dict[int, float], memory: int, limit: int | None) -> int:
    """Where the line through the two batches next to ``memory`` meets it."""
    near = sorted(tried) if limit is None else sorted(n for n in tried if n <= limit)
    a, b = near[-2:] if len(near) > 1 else sorted(tried)[:2]
    slope = (tried[b] - tried[a]) / (b - a)
    if not 0 < slope < inf:  # something else sets the peak of small batches
        return _GROWTH * b
    return min(int(a + (memory - tried[a]) / slope), _GROWTH * b)


_GROWTH = 8
"""How many times as large the next batch that is tried may be."""


def _samples(batch: Any) -> int:
    sizes = {t.shape[0] for t in tree_leaves(batch) if isinstance(t, Tensor) and t.ndim}
    if len(sizes) != 1:
        raise RazorError(
            f"estimate: the tensors of a batch have {sorted(sizes)} entries along their first dim; "
            "they must agree, so that the number of samples is known"
        )
    return int(sizes.pop())


def _of_samples(batch: Any, count: int) -> Any:
    """A batch of so many samples, on the device meta."""

    def resized(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.new_empty((count, *leaf.shape[1:]) if leaf.ndim else (), device="meta")

    return tree_map(resized, batch)


def _print(dry: DryRun, rows: Sequence[Row], batch: Any) -> None:
    pixels = _pixels(batch)
    table = Table(
        "", title=title("Estimated", dry, batch), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    columns = ["stored", "peak", "in backward", "a sample", "1000 px"]
    memory = dry.settings["memory"]
    for column in [*columns, *([f"fit in {memory}"] if memory else [])]:
        table.add_column(column, justify="right")
    own = own_way(dry)
    for row in rows:
        sizes = (row.stored, row.peak, row.peak_in_backward, row.per_sample)
        cells = ["-" if size is None else f"{size / MIB:.2f}" for size in sizes]
        cells.append(f"{1000 * row.per_sample / pixels / MIB:.3f}" if pixels else "")
        fitting = [str(row.largest_batch)] if memory else []
        table.add_row(f"{row.name}{' *' * (row.name == own)}", *cells, *fitting)
    console = Console(width=80, highlight=False)
    console.print(table)
    print(_LEGEND + (_NOT_SEEN if dry.device == "cuda" else ""))
    if why := dry.obstacle_in_backward:
        print(f"In backward: not in this run, whose gradients are {why}.")


_LEGEND = """\
MiB. Stored: between forward and backward, also for each sample more, and for
1000 pixels of it. Peak: of forward, backward and the optimizer's step, with
its state; in backward: the same with OptimizerInBackward. *: what the
configuration says."""

_NOT_SEEN = """
A GPU needs more: some hundred MiB for CUDA itself, the workspaces of cuDNN and
cuBLAS, and what is left between tensors."""


def _pixels(batch: Any) -> int:
    """The pixels of a sample; 0 if the first tensor of a batch holds no images."""
    first = next(t for t in tree_leaves(batch) if isinstance(t, Tensor))
    return int(first.shape[-2] * first.shape[-1]) if first.ndim == 4 else 0
