"""Triton kernels of the backward of norms, which read the codes of the normalised input.

The normalised input is decoded in registers, from its codes of :class:`razorlight.codecs.Uniform`,
and no decoded value is written. The value is seen as rows of ``width`` entries, which follow each
other in the order of the value's memory. Gradients are computed in float32.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from razorlight.codecs.kernels.operands import Divisor, divide
from razorlight.codecs.kernels.uniform_decode_kernels import load_codes, values_of
from razorlight.codecs.kernels.uniform_kernels import index_of_ends


class Rows(NamedTuple):
    """The rows of a value.

    ``of_place`` rows make one place of a line, if a place holds whole rows. ``eighth`` is the
    number of entries in each of the eight parts of a row of codes.
    """

    total: int
    width: int
    of_place: int
    eighth: int
    by_place: Divisor | None
    by_eighth: Divisor | None


@triton.jit
def _decode(
    encoded,
    row,
    column,
    mask,
    rows,
    at,
    LIE: tl.constexpr,
    INNER: tl.constexpr,
    PLANES: tl.constexpr,
    SHIFTS: tl.constexpr,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """The entries ``column`` ``(1, columns)`` of the rows ``row`` ``(rows, 1)``, in float32.

    Indices that belong to whole rows, or to whole columns, are computed once for all of them.

    Args:
        encoded: what the codec stored.
        row: the indices of rows.
        column: the indices of entries in a row.
        mask: whether an entry exists.
        rows: the :class:`Rows` of the value.
        at: the :class:`Geometry` of the value.
        LIE: "in places" if a place of a line holds whole rows, "as lines" if each row is a line
            that is no longer than a part of a row of codes, or else "anywhere".
        INNER: the entries of one place.
        PLANES: the widths of the planes of a code.
        SHIFTS: the first bits of these planes.
        PRESERVES: as the codec.
        COMPANDED: as the codec.
        VECTOR: so many neighbours in a row have neighbouring codes, in one part, from a multiple of
            this number on.
    """
    if LIE == "as lines":
        lines, place, within = row, column // INNER, column % INNER
    else:
        if LIE == "in places":
            index = divide(row, rows.by_place)
            within = (row - index * rows.of_place) * rows.width + column
        else:
            entry = row * rows.width + column
            index, within = entry // INNER, entry % INNER
        lines = divide(index, at.by.line)
        place = index - lines * at.line
    sample = divide(lines, at.by.between)
    middle = lines - sample * at.between
    ends = index_of_ends(sample, middle, place, within, at, INNER)
    start = lines * (at.groups * at.size)
    if LIE == "as lines":
        start, further = start * INNER, column
    else:
        start, further = (start + place) * INNER, within
    part = divide(start, rows.by_eighth)
    further += start - part * rows.eighth
    codes = load_codes(
        encoded.packed, part, further, rows.eighth, mask, PLANES, SHIFTS, True, VECTOR
    )  # fmt: skip
    token = sample * at.line + place
    return values_of(
        codes, encoded.scales, encoded.levels, encoded.steps, ends, token, mask,
        PRESERVES, COMPANDED, INNER,
    )  # fmt: skip


@triton.jit
def row_gradients(
    grad,
    weight,
    rstd,
    d_x,
    d_weight,
    d_bias,
    encoded,
    rows,
    at,
    IS_CENTRED: tl.constexpr,
    LIE: tl.constexpr,
    INNER: tl.constexpr,
    PLANES: tl.constexpr,
    SHIFTS: tl.constexpr,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The gradients of a norm with statistics of each row, of which there is 1/std.

    The gradients of weight and bias are partial sums: one row for each program. What is not needed
    is None. If the norm ``IS_CENTRED``, the mean was subtracted from the input.
    """
    column = tl.arange(0, COLUMNS)[None, :]
    is_column = column < rows.width
    if weight is not None:
        scale = tl.load(weight + column, mask=is_column, other=0.0).to(tl.float32)
    if d_weight is not None:
        sum_of_products = tl.zeros([ROWS, COLUMNS], tl.float32)
    if d_bias is not None:
        sum_of_grads = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(tl.program_id(0) * ROWS, rows.total, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        mask = is_column & (row < rows.total)
        value = _decode(
            encoded, row, column, mask, rows, at,
            LIE, INNER, PLANES, SHIFTS, PRESERVES, COMPANDED, VECTOR,
        )  # fmt: skip
        offset = row * rows.width + column
        slope = tl.load(grad + offset, mask=mask, other=0.0).to(tl.float32)
        if d_weight is not None:
            sum_of_products = tl.fma(slope, value, sum_of_products)
        if d_bias is not None:
            sum_of_grads += slope
        if d_x is not None:
            if weight is not None:
                slope = slope * scale
            out = tl.fma(value, -(tl.sum(slope * value, 1) / rows.width)[:, None], slope)
            if IS_CENTRED:
                out -= (tl.sum(slope, 1) / rows.width)[:, None]
            out *= tl.load(rstd + row, mask=row < rows.total, other=0.0)
            tl.store(d_x + offset, out.to(d_x.dtype.element_ty), mask=mask)
    column, offset = tl.arange(0, COLUMNS), tl.program_id(0) * rows.width
    if d_weight is not None:
        tl.store(d_weight + offset + column, tl.sum(sum_of_products, 0), mask=column < rows.width)
    if d_bias is not None:
        tl.store(d_bias + offset + column, tl.sum(sum_of_grads, 0), mask=column < rows.width)


@triton.jit
def channel_gradients(
    grad,
    weight,
    mean,
    rstd,
    sums,
    d_x,
    d_weight,
    d_bias,
    encoded,
    rows,
    at,
    channels,
    splits,
    IN_COLUMNS: tl.constexpr,
    LIE: tl.constexpr,
    INNER: tl.constexpr,
    PLANES: tl.constexpr,
    SHIFTS: tl.constexpr,
    PRESERVES: tl.constexpr,
    COMPANDED: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The gradients of a norm with statistics of each channel: in two launches.

    The first launch writes partial sums, the gradients of weight and bias: one row for each of
    ``splits`` programs that share a channel. The second launch reads their ``sums`` ``(2,
    channels)``, and writes the gradient of the input. What is not needed is None. A channel is a
    column, ``IN_COLUMNS``, or else each row belongs to one channel, in turn.
    """
    block, split = tl.program_id(0) // splits, tl.program_id(0) % splits
    if IN_COLUMNS:
        channel = block * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        first_row, step, count = 0, 1, rows.total
        left, right = block * COLUMNS, block * COLUMNS + 1
    else:
        channel = block + tl.zeros([1, 1], tl.int32)
        first_row, step, count = block, channels, rows.total // channels
        left, right = 0, rows.width
    is_channel = channel < channels
    # 1/std has the sign with which the normalised input was stored
    scale = tl.load(rstd + channel, mask=is_channel, other=0.0)
    sign = tl.where(scale > 0, 1.0, tl.where(scale < 0, -1.0, scale))  # NaN stays
    if mean is not None:
        centre = tl.load(mean + channel, mask=is_channel, other=0.0)
    if d_x is not None:
        entries = (rows.total * rows.width // channels).to(tl.float32)
        slope_of_value = tl.load(sums + channel, mask=is_channel, other=0.0) / -entries * sign
        shift = tl.load(sums + channels + channel, mask=is_channel, other=0.0) / -entries
        if mean is not None:
            shift -= slope_of_value * centre
        scale = tl.abs(scale)
        if weight is not None:
            scale *= tl.load(weight + channel, mask=is_channel, other=0.0).to(tl.float32)
    if d_weight is not None:
        sum_of_products = tl.zeros([ROWS, COLUMNS], tl.float32)
    if d_bias is not None:
        sum_of_grads = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(left, right, COLUMNS):
        column = start + tl.arange(0, COLUMNS)[None, :]
        for first in range(split * ROWS, count, splits * ROWS):
            number = first + tl.arange(0, ROWS)[:, None]
            row = first_row + number * step
            mask = (column < rows.width) & (number < count)
            value = _decode(
                encoded, row, column, mask, rows, at,
                LIE, INNER, PLANES, SHIFTS, PRESERVES, COMPANDED, VECTOR,
            )  # fmt: skip
            offset = row * rows.width + column
            slope = tl.load(grad + offset, mask=mask, other=0.0).to(tl.float32)
            if d_weight is not None:
                normalised = value if mean is None else value - centre
                sum_of_products = tl.fma(slope, normalised, sum_of_products)
            if d_bias is not None:
                sum_of_grads += slope
            if d_x is not None:
                out = tl.fma(value, slope_of_value, slope + shift) * scale
                tl.store(d_x + offset, out.to(d_x.dtype.element_ty), mask=mask)
    if d_weight is not None:
        _store_sums(d_weight, sum_of_products * sign, split, block, channels, IN_COLUMNS, COLUMNS)
    if d_bias is not None:
        _store_sums(d_bias, sum_of_grads, split, block, channels, IN_COLUMNS, COLUMNS)


@triton.jit
def _store_sums(
    sums, of_tile, split, block, channels, IN_COLUMNS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    of_columns = tl.sum(of_tile, 0)
    if IN_COLUMNS:
        channel = block * COLUMNS + tl.arange(0, COLUMNS)
        tl.store(sums + split * channels + channel, of_columns, mask=channel < channels)
    else:
        tl.store(sums + split * channels + block, tl.sum(of_columns, 0))
