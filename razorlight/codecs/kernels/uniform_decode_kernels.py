"""The Triton kernels that decode for :class:`razorlight.codecs.Uniform`."""

import triton
import triton.language as tl

from razorlight.codecs.kernels.elementwise_kernels import take_steps
from razorlight.codecs.kernels.operands import offset
from razorlight.codecs.kernels.uniform_kernels import (
    block_of,
    entries_of,
    factor_of,
    from_bfloat16,
)


@triton.jit
def load_codes(
    packed,
    part,
    column,
    eighth,
    mask,
    PLANES: tl.constexpr,
    SHIFTS: tl.constexpr,
    MAY_CROSS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """The codes of entries, by their part and their place in the part.

    Args:
        packed: the planes of the codes.
        part: the parts, of which each row of codes has eight.
        column: the places. If entries ``MAY_CROSS``, places from ``eighth`` on are in the next
            part.
        eighth: the entries of a part.
        mask: whether an entry has a code.
        PLANES: the widths of the planes.
        SHIFTS: the first bits of the planes.
        MAY_CROSS: see ``column``.
        VECTOR: so many neighbours have neighbouring codes, from a multiple of this number on.
    """
    codes = tl.zeros_like(part + column)
    for i in tl.static_range(len(PLANES)):
        plane = _load_plane(packed[i], part, column, eighth, mask, PLANES[i], MAY_CROSS, VECTOR)
        codes += plane << SHIFTS[i]
    return codes


@triton.jit
def values_of(
    codes,
    scales,
    levels,
    steps,
    ends,
    token,
    mask,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    INNER: tl.constexpr,
):
    """The entries that codes stand for, in float32, by the indices of their ends and tokens."""
    step = from_bfloat16(tl.load(steps + ends, mask=mask, other=0))
    if PRESERVES == "zeros":
        lowest = step * -0.5
    elif PRESERVES == "signs":
        lowest = (tl.load(levels + ends, mask=mask, other=0).to(tl.float32) + 0.5) * step
    else:
        lowest = from_bfloat16(tl.load(levels + ends, mask=mask, other=0))
    number = codes.to(tl.float32)
    # as torch, which fuses the two unless all entries of a row have the same step
    value = tl.fma(number, step, lowest) if INNER > 1 else number * step + lowest
    if PRESERVES == "zeros":
        value = tl.where(value < 0, 0.0, value)
    if PRESERVES == "signs":
        value = tl.where(value > 0, value, value * 2)
    if COMPANDED:
        value = value * tl.abs(value)
    if scales is not None:
        value = value * factor_of(tl.load(scales + token, mask=mask, other=0))
    return value


@triton.jit
def decode(
    value,
    scales,
    levels,
    steps,
    packed,
    eighth,
    at,
    operands,
    STEPS: tl.constexpr,
    PLANES: tl.constexpr,
    SHIFTS: tl.constexpr,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    INNER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The value that codes, ends and scales stand for, after the functions named in ``STEPS``."""
    sample, middle, place, within, ends, is_code, is_entry = entries_of(eighth, at, INNER, BLOCK)
    is_entry &= is_code
    row, first = block_of(eighth, BLOCK)
    part, column = row * 8 + tl.arange(0, 8)[:, None], first + tl.arange(0, BLOCK)[None, :]
    codes = load_codes(packed, part, column, eighth, is_code, PLANES, SHIFTS, False, 1)
    token = sample * at.line + place
    out = values_of(
        codes, scales, levels, steps, ends, token, is_entry, PRESERVES, COMPANDED, INNER
    )  # fmt: skip
    out = take_steps(out, STEPS, operands, sample, middle, place, within, is_entry)
    where = value.tensor + offset(value, sample, middle, place, within)
    tl.store(where, out.to(value.tensor.dtype.element_ty), mask=is_entry)


@triton.jit
def _load_plane(
    packed,
    part,
    column,
    eighth,
    mask,
    BITS: tl.constexpr,
    MAY_CROSS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Undo :func:`_store_plane`, for entries of any parts; see :func:`load_codes`."""
    byte, shift = _row_of_bytes(part, BITS) * eighth, part % 8 // BITS * BITS
    if MAY_CROSS:
        crosses, after = column >= eighth, part + 1
        byte = tl.where(crosses, (_row_of_bytes(after, BITS) - 1) * eighth, byte)
        shift = tl.where(crosses, after % 8 // BITS * BITS, shift)
    byte += column
    if VECTOR > 1:
        byte = tl.max_contiguous(tl.multiple_of(byte, [1, VECTOR]), [1, VECTOR])
    joined = tl.load(packed + byte, mask=mask, other=0).to(tl.int32)
    return (joined >> shift) & (2**BITS - 1)


@triton.jit
def _row_of_bytes(part, BITS: tl.constexpr):
    """The row of a plane's bytes ``(-1, eighth)`` where a part has its codes."""
    return part // 8 * BITS + part % BITS
