"""What the Triton kernels of :class:`razorlight.codecs.Uniform` share.

The kernels give the bits that the torch code of the codec gives, operation by operation: every
operation is in float32, divisions and roots are rounded, and a product is fused with a sum only
where torch fuses them.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from razorlight.codecs.kernels.operands import Divisor, divide


class Encoded(NamedTuple):
    """The tensors that the codec stored of a value. bfloat16 is seen as int16."""

    scales: Any
    levels: Any
    steps: Any
    packed: Any


class Divisors(NamedTuple):
    """The sizes of a :class:`Geometry` by which kernels divide."""

    block: Divisor | None
    between: Divisor | None
    line: Divisor | None
    size: Divisor | None
    padded: Divisor | None  # the places of all groups of a line, of which the last may not be full


class Geometry(NamedTuple):
    """The sizes of a value that is seen as ``(samples, between, line, inner)``, and of its groups.

    ``block`` samples share their groups, of which a line has ``groups`` of ``size`` places. The
    kernels take ``inner`` as the constant ``INNER``: to divide by a constant is cheap.
    """

    block: int
    between: int
    line: int
    groups: int
    size: int
    by: Divisors


_ROOT_OF_TWO = tl.constexpr(1.4142135381698608)


@triton.jit
def from_bfloat16(bits):
    """The numbers, in float32, of which ``bits`` are those in bfloat16."""
    return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def factor_of(scale):
    """The number that an int8 scale stands for: two to the power of half the scale."""
    scale = scale.to(tl.int32)
    power = (((scale >> 1) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where((scale & 1) == 1, power * _ROOT_OF_TWO, power)


@triton.jit
def block_of(eighth, BLOCK: tl.constexpr):
    """The row of codes of this program, and the first place in each of the eight parts.

    The grid has one dim, because other dims are limited to 65535 programs.
    """
    blocks = tl.cdiv(eighth, BLOCK)
    return tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK


@triton.jit
def entries_of(eighth, at, INNER: tl.constexpr, BLOCK: tl.constexpr):
    """The entries of a program: ``BLOCK`` entries of each of the eight parts of a row of codes.

    Args:
        eighth: the entries of a part.
        at: the :class:`Geometry` of the value.
        INNER: the entries of one place.
        BLOCK: a power of two.

    Returns:
        The samples of the entries, their indices between, along the line and within, and the
        indices of their groups' ends. Then whether each of them is stored, and whether each of them
        is in the value: a line whose last group is not full is filled up with its last entry.
    """
    row_of_codes, first = block_of(eighth, BLOCK)
    column = first + tl.arange(0, BLOCK)[None, :]
    entry = (row_of_codes * 8 + tl.arange(0, 8)[:, None]) * eighth + column
    row = entry // INNER
    lines = divide(row, at.by.padded)
    place = row - lines * (at.groups * at.size)
    sample = divide(lines, at.by.between)
    middle = lines - sample * at.between
    within = entry % INNER
    ends = index_of_ends(sample, middle, place, within, at, INNER)
    last = tl.minimum(place, at.line - 1)
    return sample, middle, last, within, ends, column < eighth, place < at.line


@triton.jit
def index_of_ends(sample, middle, place, within, at, INNER: tl.constexpr):
    """Where the ends of the groups of entries are stored."""
    lines = divide(sample, at.by.block) * at.between + middle
    return (lines * at.groups + divide(place, at.by.size)) * INNER + within
