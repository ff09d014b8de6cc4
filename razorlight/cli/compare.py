"""``razorlight compare``: one's own network and data, trained for some steps in several ways."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from razorlight.cli.dry_run import DryRun
from razorlight.cli.parsed_run import Options
from razorlight.cli.ways import convert, file_to_write, own_way, title, ways_to_show
from razorlight.comparison import WAYS, Compared, compare, recommendation
from razorlight.errors import RazorError
from razorlight.files import replaced
from razorlight.memory.amounts import parse_bytes
from razorlight.memory.budget import DENSE
from razorlight.memory.meter import MIB

OPTIONS: Options = {
    "--memory": {"type": str, "help": "recommend a way whose peak fits, such as into 8GiB"},
    "--recipes": {"type": str, "help": f"of {', '.join(WAYS)}: a,b,... (default: all)"},
    "--steps": {"type": int, "default": 3, "help": "timed steps of each (default: 3)"},
    "--plot": {"type": str, "default": "compare.png", "help": "the picture (default: compare.png)"},
    "--json": {"type": str, "help": "write the figures there too"},
}


_CONSOLE = Console(width=80, highlight=False)


def run(args: Sequence[str]) -> None:
    """Train some steps of a run in each way, and print what they need beside each other.

    Args:
        args: the options of ``fit``, and :data:`OPTIONS`.

    Raises:
        RazorError: for a recipe, a device or an amount of memory that cannot be had.
    """
    dry = DryRun("compare", args, OPTIONS, on_meta=False)
    if dry.settings["steps"] < 1:
        raise RazorError(f"compare: --steps must be at least 1, got {dry.settings['steps']}")
    memory = parse_bytes(given) if (given := dry.settings["memory"]) else None
    names, own = ways_to_show(dry), own_way(dry)
    plot, figures = file_to_write(dry, "plot"), file_to_write(dry, "json")
    module, batch = _on_device(dry)
    compared = compare(
        module,
        dry.step,
        batch,
        dry.make_optimizer,
        names,
        dry.settings["steps"],
        dry.in_backward,
        partial(convert, dry),
    )
    rows = [*track(compared, "comparing", len(names), transient=True)]
    heading = title("Measured", dry, batch)
    _print(rows, own, heading)
    _CONSOLE.print(recommendation(rows, memory), markup=False)
    if plot:
        _draw(rows, plot, heading, memory)
        print(plot)
    if figures:
        with replaced(figures) as new:
            new.write_text(json.dumps([asdict(row) for row in rows], indent=1))
        print(figures)


def _on_device(dry: DryRun) -> tuple[Any, Any]:
    if dry.device == "cuda" and not torch.cuda.is_available():
        raise RazorError("compare: there is no CUDA device here; give --device cpu")
    return dry.module.to(dry.device), move_data_to_device(dry.batch(), torch.device(dry.device))


def _print(rows: Sequence[Compared], own: str, title: str) -> None:
    table = Table("", title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("stored", "peak", "of dense", "s a step", "of dense", "cosine", "lowest"):
        table.add_column(column, justify="right")
    dense = next((row for row in rows if row.way == DENSE), Compared(DENSE))
    for row in rows:
        name = f"{row.way}{' *' * (row.way == own)}"
        if row.peak is None:
            table.add_row(name, "out of memory")
            continue
        lowest = row.lowest
        table.add_row(
            name,
            f"{(row.stored or 0) / MIB:.1f}",
            f"{row.peak / MIB:.1f}",
            f"{row.peak / dense.peak:.2f}" if dense.peak else "",
            f"{row.seconds:.3f}",
            f"{row.seconds / dense.seconds:.2f}" if row.seconds and dense.seconds else "",
            "" if row.cosine is None else f"{row.cosine:.4f}",
            f"{lowest[1]:.3f}" if lowest else "",
        )
    _CONSOLE.print(table)
    print(_LEGEND)
    for row in rows:
        notes = [f"the peak is {row.instant}"] if row.instant else []
        if row.lowest and row.lowest[1] < _LOW:
            notes.append(f"the lowest cosine is that of {row.lowest[0]}")
        if notes:
            _CONSOLE.print(f"{row.way}: {'; '.join(notes)}", markup=False)


_LOW = 0.99
"""Cosines below are named."""

_LEGEND = """\
MiB. Stored: between forward and backward. Peak: of forward, backward and the
optimizer's step, with its state. Cosine: of the whole gradient to the dense
one; lowest: of a single matrix or kernel. *: what the configuration says."""


def _draw(rows: Sequence[Compared], path: Path, title: str, memory: int | None) -> None:
    """Time over peak, as a PNG."""
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    measured = [row for row in rows if row.peak is not None and row.seconds is not None]
    for row, marker in zip(measured, cycle("os^DvP*X"), strict=False):
        axes.plot((row.peak or 0) / MIB, row.seconds or 0, marker, label=row.way)
    if memory is not None:
        axes.axvline(memory / MIB, color="grey", linestyle="--", label="--memory")
    axes.set_title(title, fontsize="small")
    axes.set(xlabel="peak, MiB", ylabel="seconds a step")
    axes.margins(0.1)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    with replaced(path) as new:
        figure.savefig(new, format="png")
