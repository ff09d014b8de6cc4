"""Sizes as torch accepts them: one number for all dims, or one number for each dim."""

from collections.abc import Sequence

Size = int | Sequence[int]


def each(size: Size, rank: int) -> list[int]:
    """``size`` as a list with one number for each of ``rank`` dims."""
    sizes = [size] if isinstance(size, int) else list(size)
    return sizes * rank if len(sizes) == 1 else sizes
