"""The Triton kernels of :class:`razorlight.codecs.Mask` and :class:`razorlight.codecs.Slope`.

The code of an entry follows from this entry alone, so one launch encodes a value. A row is cut into
eight parts, and the codes at the same place of all parts are held in one word of 32 bits, each in
four of them. They share the bytes that are stored.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from razorlight.codecs.kernels.elementwise_kernels import take_steps
from razorlight.codecs.slope_tables import CELLS_A_UNIT

_CELLS_A_UNIT = tl.constexpr(CELLS_A_UNIT)


class Rows(NamedTuple):
    """How entries lie: in ``number`` rows of ``width``, with ``eighth`` places in each part.

    The last entries of a row may be missing.
    """

    number: int
    width: int
    eighth: int


@triton.jit
def _places(rows, BLOCK: tl.constexpr):
    """The places of a program: their rows, their indices in parts, and whether they exist.

    The places of all rows are numbered together, so that short rows fill a program too.
    """
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return place // rows.eighth, place % rows.eighth, place < rows.number * rows.eighth


@triton.jit
def _entries(row, place, is_place, rows, PART: tl.constexpr):
    """The indices of the entries at places of a part, and whether the entries exist."""
    within = PART * rows.eighth + place
    return row * rows.width + within, is_place & (within < rows.width)


@triton.jit
def encode(
    x, codes_of_cells, packed, rows,
    PLANES: tl.constexpr, SHIFTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The packed codes of a value. Without ``codes_of_cells`` the entries are the codes."""
    row, place, is_place = _places(rows, BLOCK)
    words = tl.zeros([BLOCK], tl.int32)
    for part in tl.static_range(8):
        entry, is_entry = _entries(row, place, is_place, rows, part)
        words |= _codes(x + entry, codes_of_cells, is_entry) << (4 * part)
    for i in tl.static_range(len(PLANES)):
        first = packed[i] + row * PLANES[i] * rows.eighth + place
        _store_plane(words >> SHIFTS[i], first, rows.eighth, is_place, PLANES[i])


@triton.jit
def _codes(x, codes_of_cells, mask):
    """The codes of entries; 0 where ``mask`` is false."""
    value = tl.load(x, mask=mask, other=0)
    if codes_of_cells is None:
        return value.to(tl.int32)
    else:
        value = value if value.dtype == tl.float64 else value.to(tl.float32)
        cells = tl.floor(value * _CELLS_A_UNIT)
        cells = tl.minimum(tl.maximum(cells, -128.0), 127.0)
        cells = tl.where(value == value, cells, 0.0).to(tl.int32) & 255
        return tl.load(codes_of_cells + cells, mask=mask, other=0).to(tl.int32)


@triton.jit
def _store_plane(words, packed, eighth, mask, BITS: tl.constexpr):
    """Store the lowest bits of the codes. Every ``BITS``-th part shares its bytes."""
    for first in tl.static_range(BITS):
        joined = tl.zeros_like(words)
        for part in tl.static_range(first, 8, BITS):
            joined |= ((words >> (4 * part)) & (2**BITS - 1)) << (part // BITS * BITS)
        tl.store(packed + first * eighth, joined.to(tl.uint8), mask=mask)


@triton.jit
def _load_plane(packed, eighth, mask, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Undo :func:`_store_plane`."""
    words = tl.zeros([BLOCK], tl.int32)
    for first in tl.static_range(BITS):
        joined = tl.load(packed + first * eighth, mask=mask, other=0).to(tl.int32)
        for part in tl.static_range(first, 8, BITS):
            words |= ((joined >> (part // BITS * BITS)) & (2**BITS - 1)) << (4 * part)
    return words


@triton.jit
def decode(
    value, levels, packed, rows, operands,
    STEPS: tl.constexpr, PLANES: tl.constexpr, SHIFTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The value that codes stand for, after the functions named in ``STEPS``.

    Without ``levels`` the codes are the value.
    """
    row, place, is_place = _places(rows, BLOCK)
    words = tl.zeros([BLOCK], tl.int32)
    for i in tl.static_range(len(PLANES)):
        first = packed[i] + row * PLANES[i] * rows.eighth + place
        words |= _load_plane(first, rows.eighth, is_place, PLANES[i], BLOCK) << SHIFTS[i]
    zero = tl.zeros([BLOCK], tl.int32)
    for part in tl.static_range(8):
        codes = (words >> (4 * part)) & 15
        entry, is_entry = _entries(row, place, is_place, rows, part)
        if levels is None:
            out = codes.to(tl.float32)
        else:
            out = tl.load(levels + codes, mask=is_entry, other=0.0)
        if len(STEPS) > 0:
            out = out.to(tl.float32)
        out = take_steps(out, STEPS, operands, zero, zero, zero, entry, is_entry)
        tl.store(value + entry, out.to(value.dtype.element_ty), mask=is_entry)
