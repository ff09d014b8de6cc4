"""Sizes as torch takes them: one number for all dimensions, or one for each."""

from collections.abc import Sequence

Size = int | Sequence[int]


def each(size: Size, rank: int) -> list[int]:
    """``size`` as one number for each of ``rank`` dimensions."""
    sizes = [size] if isinstance(size, int) else list(size)
    return sizes * rank if len(sizes) == 1 else sizes
