"""``razorlight check``: read all data of a run once, and say what is wrong with them."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from math import nan
from pathlib import Path
from statistics import fmean, pstdev

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from razorlight.cli.parsed_run import DataOfRun, Options
from razorlight.data.check import DataCheck, SplitFacts, check_data
from razorlight.data.held_out import Split
from razorlight.data.looks import Look
from razorlight.data.plotting import draw_shares
from razorlight.data.transforms import IGNORE_INDEX
from razorlight.errors import RazorError

OPTIONS: Options = {
    "--out": {"type": str, "default": "check.png", "help": "file of the picture of class shares"},
}

SHOWN = 5
"""The most lines of a kind that are printed."""

WHOLE = 40
"""The most classes that the table has. Of more it shows the rarest and the commonest."""


def run(args: Sequence[str]) -> None:
    """Print what the data of a run are, and draw the shares of the classes.

    Args:
        args: the options of ``fit``, and :data:`OPTIONS`.

    Raises:
        RazorError: if ``fit`` would fail.
    """
    run = DataOfRun("check", args, OPTIONS)
    found = check_data(run.data, _bar)
    console = Console(width=80, highlight=False)
    if found.splits:
        console.print(_facts_table(found))
    if found.target_names and found.splits:
        console.print(_target_table(found))
    usable = any(facts.usable for facts in found.splits.values())
    if found.class_names and usable:
        console.print(_class_table(found))
        out = Path(run.config["out"])
        draw_shares(found.class_names, _shares(found)).savefig(out, format="png")
        print(f"shares of the classes: {out}")
        if len(found.class_names) <= WHOLE:
            name = "pos_weight" if found.is_multi_label else "class_weights"
            print(f"{name}: {_numbers(found.class_weights)}")
    for key in ("mean", "std") if usable else ():
        own = _numbers(getattr(found.splits.get("train", SplitFacts()), key))
        if run.data.images.are_colours:
            print(f"{key:4} {own}; the configuration has {_numbers(getattr(run.data, key))}")
        elif "train" in found.splits and not found.faults:
            print(f"{key:4} of each band in training: {_numbers(getattr(run.data, key))}")
    for line in _some(found.warnings):
        print(f"warning: {line}")
    if faults := found.faults:
        for line in _some(faults):
            print(f"fault: {line}")
        raise RazorError("check: fit would fail; correct what these lines name")
    print("fit can read all of it")


def _bar(found: Iterable[Look], total: int, split: Split) -> Iterable[Look]:
    console = Console(file=sys.stderr)
    is_shown = console.is_terminal
    return track(found, f"{split:5}", total, console=console, transient=True, disable=not is_shown)


def _facts_table(found: DataCheck) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for split in found.splits:
        table.add_column(split, justify="right")
    columns = [_facts(facts) for facts in found.splits.values()]
    for row in dict.fromkeys(name for column in columns for name in column):
        table.add_row(row, *(column.get(row, "") for column in columns))
    return table


def _facts(facts: SplitFacts) -> dict[str, str]:
    """Of a split, what the table says in each of its rows."""
    rows = {"samples": str(facts.samples)}
    if facts.problems:
        rows["that cannot be used"] = str(len(facts.problems))
    sizes = sorted(facts.sizes.elements(), key=lambda size: (size[0] * size[1], size))
    if sizes:
        for name, (height, width) in zip(
            ("smallest (width x height)", "median", "largest"),
            (sizes[0], sizes[len(sizes) // 2], sizes[-1]),
            strict=True,
        ):
            rows[name] = f"{width} x {height}"
    for mode, count in facts.modes.most_common():
        if mode:
            rows[f"of mode {mode}"] = str(count)
    if facts.turned:
        rows["turned by EXIF"] = str(facts.turned)
    if facts.repeated:
        rows["same content as another"] = str(facts.repeated)
    if facts.labels[IGNORE_INDEX]:
        rows["pixels to ignore"] = f"{facts.ignored:.1%}"
    if facts.depths:
        rows["depths in metres"] = "{:.2f} to {:.2f}".format(*facts.depths)
        rows["pixels with a depth"] = f"{facts.measured:.1%}"
    return rows


def _shares(found: DataCheck) -> dict[str, list[float]]:
    return {split: found.shares(split) for split in found.splits}


def _target_table(found: DataCheck) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("target", max_width=30, no_wrap=True, overflow="ellipsis")
    table.add_column("")
    for heading in ("mean", "std", "lowest", "highest"):
        table.add_column(heading, justify="right")
    for place, name in enumerate(found.target_names):
        for split, facts in found.splits.items():
            values = [numbers[place] for numbers in facts.numbers] or [nan]
            moments = fmean(values), pstdev(values), min(values), max(values)
            table.add_row(Text(name), split, *(f"{value:.4g}" for value in moments))
        table.add_section()
    return table


def _class_table(found: DataCheck) -> Table:
    per_pixel = any(facts.labels != facts.images_with for facts in found.splits.values())
    what = "pixels" if per_pixel else "images"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("\nclass", max_width=30, no_wrap=True, overflow="ellipsis")
    for split in found.splits:
        table.add_column(f"{split}:\n% of {what}", justify="right")
        table.add_column("\nimages", justify="right")
    table.add_column("\nweight", justify="right")
    shares, weights = _shares(found), found.class_weights
    for part in _shown(found.splits.get("train", SplitFacts()).labels, len(weights)):
        for label in part:
            cells = []
            for split, facts in found.splits.items():
                cells += [f"{100 * shares[split][label]:.2f}", str(facts.images_with[label])]
            table.add_row(Text(found.class_names[label]), *cells, f"{weights[label]:.3g}")
        table.add_section()
    return table


def _shown(counts: Counter[int], classes: int) -> list[list[int]]:
    """The labels that the table has: all, or the rarest and the commonest."""
    if classes <= WHOLE:
        return [[*range(classes)]]
    ranked = sorted(range(classes), key=lambda label: counts[label])
    return [ranked[: WHOLE // 2], ranked[-WHOLE // 2 :]]


def _numbers(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:.3g}' for value in values)}]"


def _some(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
