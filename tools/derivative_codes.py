"""The best step functions for the slopes of smooth activations, written as a table.

    python tools/derivative_codes.py

Finds, of all functions with 4, 8 or 16 levels, the one nearest to the derivative of GELU, SiLU or
Hardswish: the idea of few-bit backward (Novikov et al., ICML 2023). There each interval of x has a
level of its own; here intervals may share one, since these slopes dip below 0 and rise above 1
before they settle, which at 3 bits takes 14 to 24 % off the error. The levels 0 and 1 are always
among them, for the two ends: an entry that is switched off passes no gradient at all.

x is cut into 256 cells of 1/16: an edge is then exact in every float dtype, and the code of an x
comes out of a table. With the cells sorted by their slope, the best levels are those of the best
cuts into segments, which dynamic programming finds.
"""

import argparse
import math
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

TABLES = Path(__file__).parents[1] / "razorlight" / "codecs" / "slope_tables.py"

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
}
BITS = (2, 3, 4)

CELLS, CELLS_A_UNIT = 256, 16  # from -8 to 8
LEFT = -CELLS / CELLS_A_UNIT / 2
POINTS = 256  # of the midpoint rule, in each cell

SPREAD = 1.5
"""Standard deviation of x, mean 0: inputs of an MLP's activation are near N(-.5, 1.5), those of a
convolution's, after a BatchNorm, near N(0, 1)."""

HEADER = '''"""Step functions in place of the slopes of activations; data for the Slope codec.

Written by `python tools/derivative_codes.py`, which says how they were found.
"""

# fmt: off

CELLS_A_UNIT = {cells}
"""Edges are multiples of 1 / CELLS_A_UNIT."""

Steps = tuple[tuple[float, ...], tuple[float, ...], float]
"""Edges of the intervals of x, ascending; the slope in each, one more; the root mean square error
for x of N(0, {spread})."""

STEPS: dict[tuple[str, int], Steps] = {{
'''


class Solution(NamedTuple):
    """A step function: ``slopes[i]`` up to and without ``edges[i]``, the last one from there on."""

    edges: tuple[float, ...]
    slopes: tuple[float, ...]
    error: float  # root mean square


def slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of an elementwise ``function`` at ``x``, of its shape and dtype."""
    x = x.detach().requires_grad_()
    (derivative,) = torch.autograd.grad(function(x).sum(), x)
    return derivative


def moments(function: Callable[[Tensor], Tensor], spread: float) -> Tensor:
    """Integrals of p, p f' and p f'^2 over each cell, p the density of N(0, spread).

    Args:
        function: f, elementwise.
        spread: a standard deviation.

    Returns:
        ``(3, CELLS)`` float64; the first row sums to 1.
    """
    index = torch.arange(CELLS * POINTS, dtype=torch.float64)
    x = LEFT + (index + 0.5) / (CELLS_A_UNIT * POINTS)
    p = torch.exp(-0.5 * (x / spread) ** 2)
    p /= p.sum()
    derivative = slope(function, x)
    return torch.stack([p, p * derivative, p * derivative**2]).view(3, CELLS, POINTS).sum(2)


def segment(cost: Tensor, count: int) -> list[int]:
    """Cut a sequence of n items into ``count`` segments of the least cost in all.

    Args:
        cost: ``(n + 1, n + 1)``; entry i, j is the cost of the segment i..j-1, infinite unless
            i < j.
        count: of segments, at most n.

    Returns:
        The ends of the segments: ``count + 1`` ascending indices from 0 to n.
    """
    best, starts = cost[0], []
    for _ in range(count - 1):
        # the best start of a last segment, for each of its ends
        best, start = (best[:, None] + cost).min(dim=0)
        starts.append(start)
    ends = [len(cost) - 1]
    for start in reversed(starts):
        ends.append(int(start[ends[-1]]))
    return [0, *reversed(ends)]


def segment_costs(cells: Tensor, off: int, on: int) -> tuple[Tensor, Tensor]:
    """The best level of each segment of consecutive cells, and its squared error.

    Args:
        cells: moments ``(3, n)`` of the cells in some order.
        off: the cell whose segment gets level 0.
        on: the cell whose segment gets level 1.

    Returns:
        Levels and errors, both ``(n + 1, n + 1)``, of the segments i..j-1. Unless i < j the level
        means nothing and the error is infinite.
    """
    sums = F.pad(cells.cumsum(1), (1, 0))
    mass, first, second = sums[:, None, :] - sums[:, :, None]
    start, end = torch.arange(len(mass))[:, None], torch.arange(len(mass))
    level = first / mass  # the mean slope
    level = torch.where((start <= off) & (off < end), 0.0, level)
    level = torch.where((start <= on) & (on < end), 1.0, level)
    error = second - 2 * level * first + level**2 * mass
    return level, torch.where(start < end, error, torch.inf)


def solve(function: Callable[[Tensor], Tensor], bits: int, spread: float = SPREAD) -> Solution:
    """The step function of ``2**bits`` levels nearest to the slope of ``function``.

    Args:
        function: elementwise, its slope going to 0 on the left and to 1 on the right.
        bits: the logarithm of the number of levels.
        spread: standard deviation of x, whose mean is 0.
    """
    cells = moments(function, spread)
    order = (cells[1] / cells[0]).argsort()
    places = order.argsort()  # of each cell in that order
    level, cost = segment_costs(cells[:, order], int(places[0]), int(places[-1]))
    ends = segment(cost, 2**bits)
    segments = list(pairwise(ends))
    levels = torch.stack([level[i, j] for i, j in segments])
    widths = torch.tensor([j - i for i, j in segments])
    slopes = levels.repeat_interleave(widths)[places]
    changes = slopes.diff().nonzero().flatten() + 1
    return Solution(
        edges=tuple((LEFT + changes / CELLS_A_UNIT).tolist()),
        slopes=tuple(round(value, 6) for value in slopes[[0, *changes.tolist()]].tolist()),
        error=round(math.sqrt(sum(float(cost[i, j]) for i, j in segments)), 6),
    )


def source(solutions: dict[tuple[str, int], Solution]) -> str:
    """The table as Python source."""
    lines = partial(textwrap.wrap, width=100, initial_indent=" " * 8, subsequent_indent=" " * 9)

    def rows() -> Iterator[str]:
        for (name, bits), (edges, slopes, error) in solutions.items():
            yield f'    ("{name}", {bits}): ('
            yield from lines(f"{edges},")
            yield from lines(f"{slopes},")
            yield f"        {error},"
            yield "    ),"

    return HEADER.format(cells=CELLS_A_UNIT, spread=SPREAD) + "\n".join(rows()) + "\n}\n"


def main() -> None:
    """Solve, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=TABLES, help="where to write the table")
    output = parser.parse_args().output

    solutions = {(name, b): solve(f, b) for name, f in FUNCTIONS.items() for b in BITS}
    table = Table(
        "function", "bits", "slopes, and the edges between them", Column("error", justify="right")
    )
    for (name, bits), (edges, slopes, error) in solutions.items():
        steps = [f"{s:.3f} [{e:g}]" for s, e in zip(slopes, edges, strict=False)]
        table.add_row(name, str(bits), " ".join([*steps, f"{slopes[-1]:.3f}"]), f"{error:.4f}")
    Console(markup=False).print(table)
    output.write_text(source(solutions))


if __name__ == "__main__":
    main()
