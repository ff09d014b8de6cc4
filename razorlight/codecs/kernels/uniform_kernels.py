"""The Triton kernels of :class:`razorlight.codecs.Uniform`.

The kernels give the bits that the torch code of the codec gives, operation by operation: every
operation is in float32, divisions and roots are rounded, and a product is fused with a sum only
where torch fuses them. One kernel finds the ends of all groups, and another one the codes, because
a byte of codes holds entries from all over a row, and so from several groups.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from razorlight.codecs.kernels.elementwise_kernels import step
from razorlight.codecs.kernels.operands import Divisor, Operand, Strides, divide, load, offset


class Statistics(NamedTuple):
    """The statistics of a norm: its mean and 1/std."""

    mean: Operand
    rstd: Operand


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
    """How a value lies, as ``(samples, between, line, inner)``.

    ``block`` samples share their groups, of which a line has ``groups`` of ``size`` places. The
    kernels take ``inner`` as the constant ``INNER``: to divide by a constant is cheap. The strides
    are None if the value is decoded in registers alone.
    """

    block: int
    between: int
    line: int
    groups: int
    size: int
    by: Divisors
    strides: Strides | None


_TINY = tl.constexpr(1.1754943508222875e-38)
_ROOT_OF_TWO = tl.constexpr(1.4142135381698608)


@triton.jit
def _to_bfloat16(x):
    """The bits of ``x`` in bfloat16, rounded to the nearest even."""
    bits = x.to(tl.int32, bitcast=True)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(x == x, bits, 0x7FC0).to(tl.int16)


@triton.jit
def _from_bfloat16(bits):
    return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def _factor(scale):
    """The number that an int8 scale stands for: two to the power of half the scale."""
    scale = scale.to(tl.int32)
    power = (((scale >> 1) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where((scale & 1) == 1, power * _ROOT_OF_TWO, power)


@triton.jit
def _divisor(step):
    return tl.where(step < _TINY, _TINY, step)


@triton.jit
def _shrink_negatives(x):
    return tl.where(x > 0, x, x * 0.5)


@triton.jit
def _load(x, sample, middle, place, within, at, norm, scales, mask, COMPANDED: tl.constexpr):
    """The entries whose groups are quantised. With ``norm`` they are normalised first."""
    where = offset(sample, middle, place, within, at.strides)
    value = tl.load(x + where, mask=mask, other=0.0).to(tl.float32)
    if norm is not None:
        value = value - load(norm.mean, sample, middle, place, within, mask)
        value = value * load(norm.rstd, sample, middle, place, within, mask)
        value = value.to(x.dtype.element_ty).to(tl.float32)  # as torch rounds it
    if scales is not None:
        scale = tl.load(scales + sample * at.line + place, mask=mask, other=0)
        value = tl.div_rn(value, _factor(scale))
    if COMPANDED:
        root = tl.sqrt_rn(tl.abs(value))
        value = tl.where(value < 0, -root, root)
    return value


@triton.jit
def _block(eighth, BLOCK: tl.constexpr):
    """The row of codes of this program, and the first place in each of the eight parts.

    The grid has one dim, because other dims are limited to 65535 programs.
    """
    blocks = tl.cdiv(eighth, BLOCK)
    return tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK


@triton.jit
def _entries(eighth, at, INNER: tl.constexpr, BLOCK: tl.constexpr):
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
    row_of_codes, first = _block(eighth, BLOCK)
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


@triton.jit
def find_scales(
    x,
    scales,
    tokens,
    size,
    root_of_size,
    at,
    INNER: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The scale of each token: two times the octaves of its root mean square, in int8."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    row = token[:, None]
    squares = tl.zeros([TOKENS, BLOCK], tl.float32)
    for first in range(0, size, BLOCK):
        entry = first + tl.arange(0, BLOCK)[None, :]
        places = row // at.line, entry // INNER, row % at.line, entry % INNER
        where = offset(places[0], places[1], places[2], places[3], at.strides)
        value = tl.load(x + where, mask=(row < tokens) & (entry < size), other=0.0)
        squares += value.to(tl.float32) * value.to(tl.float32)
    norm = tl.sqrt_rn(tl.sum(squares, 1))
    octaves = tl.log2(tl.div_rn(norm, root_of_size)) * 2
    octaves = tl.floor(tl.minimum(tl.maximum(octaves, -128.0), 127.0) + 0.5)
    tl.store(scales + token, tl.where(norm == norm, octaves, 0.0).to(tl.int8), mask=token < tokens)


@triton.jit
def find_ends(
    x,
    scales,
    levels,
    steps,
    count,
    step_of_span,
    farthest_level,
    at,
    norm,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    INNER: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The lowest level and the step of each group."""
    index = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    if INNER > 1:  # neighbours in memory belong to neighbouring groups, or else to one group
        group, along = index[None, :], tl.arange(0, BLOCK)[:, None]
    else:
        group, along = index[:, None], tl.arange(0, BLOCK)[None, :]
    lines = group // INNER // at.groups
    first = group // INNER % at.groups * at.size
    low = tl.zeros_like(group + along).to(tl.float32) + float("inf")
    high = -low
    is_nan = low != low
    for i in range(at.block):
        sample = lines // at.between * at.block + i
        for done in range(0, at.size, BLOCK):
            place = tl.minimum(first + done + along, at.line - 1)
            is_here = (done + along < at.size) & (group < count)
            value = _load(
                x, sample, lines % at.between, place, group % INNER, at, norm, scales, is_here,
                COMPANDED,
            )  # fmt: skip
            is_nan = is_nan | (is_here & (value != value))
            low = tl.where(is_here & (value < low), value, low)
            high = tl.where(is_here & (value > high), value, high)
    dim: tl.constexpr = 0 if INNER > 1 else 1
    is_spoilt = tl.max(is_nan.to(tl.int32), dim) > 0
    lowest = tl.where(is_spoilt, float("nan"), tl.min(low, dim))
    highest = tl.where(is_spoilt, float("nan"), tl.max(high, dim))
    if PRESERVES == "zeros":
        step = _to_bfloat16(tl.where(highest < 0, 0.0, highest) * step_of_span)
    elif PRESERVES == "signs":
        lowest, highest = _shrink_negatives(lowest), _shrink_negatives(highest)
        span = _from_bfloat16(_to_bfloat16((highest - lowest) * step_of_span))
        reach = tl.div_rn(tl.where(highest > -lowest, highest, -lowest), farthest_level)
        reach = _from_bfloat16(_to_bfloat16(reach))
        step = _to_bfloat16(tl.where(reach > span, reach, span))
        level = tl.ceil(tl.div_rn(lowest, _divisor(_from_bfloat16(step)))) - 1
        level = tl.where(level == level, level, 0.0).to(levels.dtype.element_ty)
        tl.store(levels + index, level, mask=index < count)
    else:
        level = _to_bfloat16(lowest - tl.abs(lowest) * 0.00390625)
        step = _to_bfloat16((highest - _from_bfloat16(level)) * step_of_span)
        tl.store(levels + index, level, mask=index < count)
    tl.store(steps + index, step, mask=index < count)


@triton.jit
def encode(
    x,
    scales,
    levels,
    steps,
    packed,
    seed,
    eighth,
    at,
    norm,
    PLANES: tl.constexpr,
    SHIFTS: tl.constexpr,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    INNER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The packed codes of a value whose ends and scales are known."""
    sample, middle, place, within, ends, is_code, _ = _entries(eighth, at, INNER, BLOCK)
    value = _load(x, sample, middle, place, within, at, norm, scales, is_code, COMPANDED)
    step = _from_bfloat16(tl.load(steps + ends, mask=is_code, other=0))
    divisor = _divisor(step)
    if PRESERVES == "zeros":
        number = tl.ceil(tl.div_rn(value, divisor))
    elif PRESERVES == "signs":
        level = tl.load(levels + ends, mask=is_code, other=0).to(tl.float32)
        number = tl.ceil(_shrink_negatives(tl.div_rn(value, divisor))) - (level + 1)
    else:
        lowest = _from_bfloat16(tl.load(levels + ends, mask=is_code, other=0))
        first, one_over = tl.div_rn(-lowest, divisor), tl.div_rn(1.0, divisor)
        if seed is None:  # with one half added, truncation rounds to the nearest
            first += 0.5
        # torch fuses the two unless all entries of a row have the same step
        number = tl.fma(value, one_over, first) if INNER > 1 else value * one_over + first
        if seed is not None:
            row, first_place = _block(eighth, BLOCK)
            entry = (row * 8 + tl.arange(0, 8)[:, None]) * eighth
            entry += first_place + tl.arange(0, BLOCK)[None, :]
            number += tl.rand(tl.load(seed), entry)
    # in a spoilt group any code will do
    number = tl.where(number == number, tl.maximum(number, 0.0), 0.0)
    codes = tl.minimum(number, 2047.0).to(tl.int32)
    for i in tl.static_range(len(PLANES)):
        _store_plane(codes >> SHIFTS[i], packed[i], eighth, PLANES[i], BLOCK)


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
    step = _from_bfloat16(tl.load(steps + ends, mask=mask, other=0))
    if PRESERVES == "zeros":
        lowest = step * -0.5
    elif PRESERVES == "signs":
        lowest = (tl.load(levels + ends, mask=mask, other=0).to(tl.float32) + 0.5) * step
    else:
        lowest = _from_bfloat16(tl.load(levels + ends, mask=mask, other=0))
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
        value = value * _factor(tl.load(scales + token, mask=mask, other=0))
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
    sample, middle, place, within, ends, is_code, is_entry = _entries(eighth, at, INNER, BLOCK)
    is_entry &= is_code
    row, first = _block(eighth, BLOCK)
    part, column = row * 8 + tl.arange(0, 8)[:, None], first + tl.arange(0, BLOCK)[None, :]
    codes = load_codes(packed, part, column, eighth, is_code, PLANES, SHIFTS, False, 1)
    token = sample * at.line + place
    out = values_of(
        codes, scales, levels, steps, ends, token, is_entry, PRESERVES, COMPANDED, INNER
    )  # fmt: skip
    for i in tl.static_range(len(STEPS)):
        out = step(out, STEPS[i], operands[i], sample, middle, place, within, is_entry)
    where = offset(sample, middle, place, within, at.strides)
    tl.store(value + where, out.to(value.dtype.element_ty), mask=is_entry)


@triton.jit
def _store_plane(codes, packed, eighth, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Store the lowest bits of the codes of eight parts of a row, which share their bytes."""
    part = tl.arange(0, 8)[:, None]
    shifted = (codes & (2**BITS - 1)) << (part // BITS * BITS)
    joined = tl.sum(tl.reshape(shifted, (8 // BITS, BITS, BLOCK)), 0)
    row, first = _block(eighth, BLOCK)
    place = first + tl.arange(0, BLOCK)[None, :]
    row = row.to(tl.int64) * BITS + tl.arange(0, BITS)[:, None]
    tl.store(packed + row * eighth + place, joined.to(tl.uint8), mask=place < eighth)


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
