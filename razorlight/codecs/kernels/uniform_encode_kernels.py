"""The Triton kernels that encode for :class:`razorlight.codecs.Uniform`.

One kernel finds the ends of all groups, and another one the codes, because a byte of codes holds
entries from all over a row, and so from several groups.
"""

import triton
import triton.language as tl

from razorlight.codecs.kernels.operands import load
from razorlight.codecs.kernels.uniform_kernels import (
    block_of,
    entries_of,
    factor_of,
    from_bfloat16,
)

_TINY = tl.constexpr(1.1754943508222875e-38)


@triton.jit
def _to_bfloat16(x):
    """The bits of ``x`` in bfloat16, rounded to the nearest even."""
    bits = x.to(tl.int32, bitcast=True)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(x == x, bits, 0x7FC0).to(tl.int16)


@triton.jit
def _divisor(step):
    return tl.where(step < _TINY, _TINY, step)


@triton.jit
def _shrink_negatives(x):
    return tl.where(x > 0, x, x * 0.5)


@triton.jit
def _load(
    x, mean, rstd, scales, sample, middle, place, within, at, mask, COMPANDED: tl.constexpr
):  # fmt: skip
    """The entries whose groups are quantised. With statistics they are normalised first."""
    value = load(x, sample, middle, place, within, mask)
    if mean is not None:
        value = value - load(mean, sample, middle, place, within, mask)
        value = value * load(rstd, sample, middle, place, within, mask)
        value = value.to(x.tensor.dtype.element_ty).to(tl.float32)  # as torch rounds it
    if scales is not None:
        scale = tl.load(scales + sample * at.line + place, mask=mask, other=0)
        value = tl.div_rn(value, factor_of(scale))
    if COMPANDED:
        root = tl.sqrt_rn(tl.abs(value))
        value = tl.where(value < 0, -root, root)
    return value


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
        is_here = (row < tokens) & (entry < size)
        value = load(x, places[0], places[1], places[2], places[3], is_here)
        squares += value * value
    norm = tl.sqrt_rn(tl.sum(squares, 1))
    octaves = tl.log2(tl.div_rn(norm, root_of_size)) * 2
    octaves = tl.floor(tl.minimum(tl.maximum(octaves, -128.0), 127.0) + 0.5)
    tl.store(scales + token, tl.where(norm == norm, octaves, 0.0).to(tl.int8), mask=token < tokens)


@triton.jit
def find_ends(
    x,
    mean,
    rstd,
    scales,
    levels,
    steps,
    count,
    step_of_span,
    farthest_level,
    at,
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
                x, mean, rstd, scales, sample, lines % at.between, place, group % INNER, at,
                is_here, COMPANDED,
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
        span = from_bfloat16(_to_bfloat16((highest - lowest) * step_of_span))
        reach = tl.div_rn(tl.where(highest > -lowest, highest, -lowest), farthest_level)
        reach = from_bfloat16(_to_bfloat16(reach))
        step = _to_bfloat16(tl.where(reach > span, reach, span))
        level = tl.ceil(tl.div_rn(lowest, _divisor(from_bfloat16(step)))) - 1
        level = tl.where(level == level, level, -1.0).to(levels.dtype.element_ty)
        tl.store(levels + index, level, mask=index < count)
    else:
        level = _to_bfloat16(lowest - tl.abs(lowest) * 0.00390625)
        step = _to_bfloat16((highest - from_bfloat16(level)) * step_of_span)
        tl.store(levels + index, level, mask=index < count)
    tl.store(steps + index, step, mask=index < count)


@triton.jit
def encode(
    x,
    mean,
    rstd,
    scales,
    levels,
    steps,
    packed,
    seed,
    eighth,
    at,
    PLANES: tl.constexpr,
    SHIFTS: tl.constexpr,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    INNER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The packed codes of a value whose ends and scales are known."""
    sample, middle, place, within, ends, is_code, _ = entries_of(eighth, at, INNER, BLOCK)
    value = _load(
        x, mean, rstd, scales, sample, middle, place, within, at, is_code, COMPANDED
    )  # fmt: skip
    step = from_bfloat16(tl.load(steps + ends, mask=is_code, other=0))
    divisor = _divisor(step)
    if PRESERVES == "zeros":
        number = tl.ceil(tl.div_rn(value, divisor))
    elif PRESERVES == "signs":
        level = tl.load(levels + ends, mask=is_code, other=0).to(tl.float32)
        number = tl.ceil(_shrink_negatives(tl.div_rn(value, divisor))) - (level + 1)
    else:
        lowest = from_bfloat16(tl.load(levels + ends, mask=is_code, other=0))
        first, one_over = tl.div_rn(-lowest, divisor), tl.div_rn(1.0, divisor)
        if seed is None:  # with one half added, truncation rounds to the nearest
            first += 0.5
        # torch fuses the two unless all entries of a row have the same step
        number = tl.fma(value, one_over, first) if INNER > 1 else value * one_over + first
        if seed is not None:
            row, first_place = block_of(eighth, BLOCK)
            entry = (row * 8 + tl.arange(0, 8)[:, None]) * eighth
            entry += first_place + tl.arange(0, BLOCK)[None, :]
            number += tl.rand(tl.load(seed), entry)
    # in a spoilt group any code will do
    number = tl.where(number == number, tl.maximum(number, 0.0), 0.0)
    codes = tl.minimum(number, 2047.0).to(tl.int32)
    for i in tl.static_range(len(PLANES)):
        _store_plane(codes >> SHIFTS[i], packed[i], eighth, PLANES[i], BLOCK)


@triton.jit
def _store_plane(codes, packed, eighth, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Store the lowest bits of the codes of eight parts of a row, which share their bytes."""
    part = tl.arange(0, 8)[:, None]
    shifted = (codes & (2**BITS - 1)) << (part // BITS * BITS)
    joined = tl.sum(tl.reshape(shifted, (8 // BITS, BITS, BLOCK)), 0)
    row, first = block_of(eighth, BLOCK)
    place = first + tl.arange(0, BLOCK)[None, :]
    row = row.to(tl.int64) * BITS + tl.arange(0, BITS)[:, None]
    tl.store(packed + row * eighth + place, joined.to(tl.uint8), mask=place < eighth)
