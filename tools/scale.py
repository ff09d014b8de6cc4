"""How stored and peak memory of a training step grow with batch, image size and depth.

    python tools/scale.py --depths 2,4,8,12
    python tools/scale.py --model tf_efficientnet_lite0 --sizes 64,96,128,160 --size 128

Each is varied with the others fixed, and a line is fitted to what is measured: its slope is what
one more sample, 1000 more pixels of the batch or one more block takes. Stored and peak are those of
forward and backward, without an optimizer; images are noise, weights random. The peak holds
parameters and gradients too: of a small batch it stands at the end of backward, where activations
are gone, and follows no line; r, the correlation of each, shows that.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bench import noise, run, sgd, variants
from networks import Trainee, build
from rich.console import Console
from rich.table import Table
from torch import nn

from razorlight import RazorError
from razorlight.memory import measure_step
from razorlight.memory.meter import MIB

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a step is measured with.

    Attributes:
        batch: samples.
        size: of the images, in pixels.
        depth: how many of the network's blocks are there; None for all.
    """

    batch: int
    size: int
    depth: int | None


SLOPES: dict[str, tuple[str, Callable[[Setting], float]]] = {
    "batch": ("sample", lambda at: at.batch),
    "size": ("1000 pixels", lambda at: at.batch * at.size**2 / 1000),
    "depth": ("block", lambda at: at.depth or 0),
}
"""By what is varied: of what a slope is, and how much of it there is."""


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="vit_small_patch14_dinov2",
        help="of timm, or Architecture:encoder of smp",
    )
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8], help="a,b,...")
    parser.add_argument("--sizes", type=numbers, default=[56, 84, 112, 140, 168], help="a,b,...")
    parser.add_argument(
        "--depths", type=numbers, default=[], help="a,b,... of a network that has .blocks"
    )
    parser.add_argument("--batch", type=int, default=4, help="while another is varied")
    parser.add_argument("--size", type=int, default=112, help="while another is varied")
    parser.add_argument("--depth", type=int, help="while another is varied; all blocks by default")
    parser.add_argument("--recipes", type=lambda names: names.split(","), default=["balanced"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.set_defaults(sparsity=None, codec=None)
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    """``"1,2"`` as ``[1, 2]``."""
    return [int(number) for number in text.split(",")]


def settings(arguments: argparse.Namespace) -> dict[str, list[Setting]]:
    """The settings to measure, by what is varied."""
    fixed = Setting(arguments.batch, arguments.size, arguments.depth)
    return {
        "batch": [replace(fixed, batch=batch) for batch in arguments.batches],
        "size": [replace(fixed, size=size) for size in arguments.sizes],
        "depth": [replace(fixed, depth=depth) for depth in arguments.depths],
    }


def network(name: str, at: Setting) -> nn.Module:
    """The network for images of that size, cut to that depth.

    Raises:
        RazorError: for an unknown name, or a depth of a network that has not so many blocks.
    """
    model: Any = build(name, at.size)
    if at.depth is not None:
        blocks = getattr(model, "blocks", ())
        if not 1 <= at.depth <= len(blocks):
            raise RazorError(f"{name} has {len(blocks)} blocks: no depth of {at.depth}")
        model.blocks = blocks[: at.depth]
    return model


def memories(at: Setting, arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """MiB stored and at the peak of one step, by variant."""
    torch.manual_seed(0)
    dense = network(arguments.model, at).to(arguments.device)
    of = argparse.Namespace(model=arguments.model, batch=at.batch, size=at.size)
    images, labels = (t.to(arguments.device) for t in next(noise(of)))
    found = {}
    for name, model in variants(dense, arguments).items():
        trainee = Trainee(model, sgd(model, lr=0.0), "fp32")
        batch = (images.clone(), labels)  # on which no record lies
        memory = measure_step(model, lambda t=trainee, b=batch: t.loss(b), batch)
        found[name] = (memory.stored / MIB, memory.peak / MIB)
    return found


def measure(arguments: argparse.Namespace) -> list[Row]:
    """One row for each variant of each slope.

    Raises:
        RazorError: as :func:`network`, or for a recipe that cannot be had.
    """
    return [
        row
        for what, points in settings(arguments).items()
        if len(points) > 1
        for row in fitted(what, points, [memories(at, arguments) for at in points])
    ]


def fitted(
    what: str, points: list[Setting], measured: list[dict[str, tuple[float, float]]]
) -> Iterator[Row]:
    """A row for each variant: the slopes of the lines fitted to its stored and peak MiB."""
    unit, amount = SLOPES[what]
    amounts = [amount(at) for at in points]
    for variant in measured[0]:
        row: Row = {"unit": unit, "variant": variant}
        for i, kind in enumerate(("stored", "peak")):
            found = [memory[variant][i] for memory in measured]
            row[kind] = statistics.linear_regression(amounts, found).slope
            row[f"{kind} r"] = statistics.correlation(amounts, found)
        yield row


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The slopes with their ratios to dense, in 80 columns."""
    title = (
        f"{arguments.model}: MiB by which a step grows; varied: batch {arguments.batches}, size "
        f"{arguments.sizes}, depth {arguments.depths}; else batch {arguments.batch}, size "
        f"{arguments.size}, depth {arguments.depth or 'all'}; fp32, {arguments.device}; measured"
    )
    table = Table("for each", "variant", title=title)
    for column in ("stored", "peak", "r of both"):
        table.add_column(column, justify="right")
    for row in rows:
        if row["variant"] == "dense":
            dense = row
            table.add_section()
        table.add_row(
            row["unit"] if row is dense else "",
            row["variant"],
            *(f"{row[k]:.3f} ({dense[k] / row[k]:.1f}x)" for k in ("stored", "peak")),
            f"{row['stored r']:.3f}, {row['peak r']:.3f}",
        )
    Console(width=80).print(table)


def main() -> None:
    """Of the command line."""
    run("scale", parse_arguments(), measure, print_table)


if __name__ == "__main__":
    main()
