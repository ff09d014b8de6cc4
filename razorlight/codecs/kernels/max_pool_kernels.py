"""The Triton kernels of max pooling in two dims, which stores the place of each maximum.

Entries of the output are counted in the order of its memory. Eight, four or two of them share a
byte of packed places, as :mod:`razorlight.codecs.packing` says: entries from all over the output.
"""

from typing import NamedTuple

import triton
import triton.language as tl


class Map(NamedTuple):
    """A tensor ``(batch, channels, rows, columns)``: its sizes and its strides."""

    channels: int
    rows: int
    columns: int
    of_sample: int
    of_channel: int
    of_row: int
    of_column: int


class Axis(NamedTuple):
    """The windows along one dim."""

    kernel: int
    stride: int
    padding: int
    dilation: int


@triton.jit
def _split(entry, map, CHANNELS_LAST: tl.constexpr):
    """The sample, channel, row and column of an entry, counted in the order of memory."""
    if CHANNELS_LAST:
        channel, entry = entry % map.channels, entry // map.channels
    column, entry = entry % map.columns, entry // map.columns
    row, entry = entry % map.rows, entry // map.rows
    if not CHANNELS_LAST:
        channel, entry = entry % map.channels, entry // map.channels
    return entry, channel, row, column


@triton.jit
def _offset(sample, channel, row, column, map):
    offset = sample.to(tl.int64) * map.of_sample + channel.to(tl.int64) * map.of_channel
    return offset + row.to(tl.int64) * map.of_row + column.to(tl.int64) * map.of_column


@triton.jit
def _source(
    sample, channel, row, column, i, j, of_x, mask, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Where the entry at place ``(i, j)`` of a window lies, and whether it is in the map."""
    from_row = row * ROWS.stride - ROWS.padding + i * ROWS.dilation
    from_column = column * COLUMNS.stride - COLUMNS.padding + j * COLUMNS.dilation
    is_inside = mask & (from_row >= 0) & (from_row < of_x.rows)
    is_inside &= (from_column >= 0) & (from_column < of_x.columns)
    return _offset(sample, channel, from_row, from_column, of_x), is_inside


@triton.jit
def pool(
    x,
    out,
    packed,
    count,
    part_size,
    of_x,
    of_out,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The maximum of each window, and the packed places of the maxima in their windows."""
    PARTS: tl.constexpr = 8 // BITS
    part = tl.arange(0, PARTS)[:, None]
    byte = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    entry = part * part_size + byte
    is_entry = (byte < part_size) & (entry < count)
    sample, channel, row, column = _split(entry, of_out, CHANNELS_LAST)
    best = tl.full([PARTS, BLOCK], float("-inf"), tl.float32)
    places = tl.full([PARTS, BLOCK], -1, tl.int32)
    for i in tl.static_range(tl.constexpr(ROWS.kernel)):
        for j in tl.static_range(tl.constexpr(COLUMNS.kernel)):
            where, is_inside = _source(
                sample, channel, row, column, i, j, of_x, is_entry, ROWS, COLUMNS
            )  # fmt: skip
            value = tl.load(x + where, mask=is_inside, other=float("-inf")).to(tl.float32)
            # as torch: the first of equal maxima, but the last NaN
            is_better = is_inside & ((value > best) | (value != value) | (places < 0))
            best = tl.where(is_better, value, best)
            places = tl.where(is_better, i * COLUMNS.kernel + j, places)
    where = _offset(sample, channel, row, column, of_out)
    tl.store(out + where, best.to(out.dtype.element_ty), mask=is_entry)
    # a dilated window may lie between the entries of a small map, and have no place
    shifted = tl.where(is_entry & (places >= 0), places, 0) << (part * BITS)
    tl.store(packed + byte, tl.sum(shifted, 0)[None, :].to(tl.uint8), mask=byte < part_size)


@triton.jit
def _load_place(packed, entry, part_size, mask, BITS: tl.constexpr):
    byte = tl.load(packed + entry % part_size, mask=mask, other=0).to(tl.int32)
    return (byte >> (entry // part_size * BITS)) & (2**BITS - 1)


@triton.jit
def gradient(
    grad,
    packed,
    d_x,
    count,
    part_size,
    of_x,
    of_out,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of the input: each entry collects from the windows whose maximum it was."""
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_entry = entry < count
    sample, channel, row, column = _split(entry, of_x, CHANNELS_LAST)
    total = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(tl.constexpr(ROWS.kernel)):
        for j in tl.static_range(tl.constexpr(COLUMNS.kernel)):
            down = row + ROWS.padding - i * ROWS.dilation
            across = column + COLUMNS.padding - j * COLUMNS.dilation
            to_row, to_column = down // ROWS.stride, across // COLUMNS.stride
            is_window = is_entry & (down >= 0) & (down % ROWS.stride == 0)
            is_window &= (to_row < of_out.rows) & (to_column < of_out.columns)
            is_window &= (across >= 0) & (across % COLUMNS.stride == 0)
            if CHANNELS_LAST:
                of_sample = (sample * of_out.rows + to_row) * of_out.columns + to_column
                window = of_sample * of_out.channels + channel
            else:
                of_row = (sample * of_out.channels + channel) * of_out.rows + to_row
                window = of_row * of_out.columns + to_column
            place = _load_place(packed, window, part_size, is_window, BITS)
            is_mine = is_window & (place == i * COLUMNS.kernel + j)
            where = _offset(sample, channel, to_row, to_column, of_out)
            total += tl.load(grad + where, mask=is_mine, other=0.0).to(tl.float32)
    where = _offset(sample, channel, row, column, of_x)
    tl.store(d_x + where, total.to(d_x.dtype.element_ty), mask=is_entry)


@triton.jit
def pick(
    x,
    packed,
    out,
    count,
    part_size,
    of_x,
    of_out,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The entry of each window that was its maximum."""
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_entry = entry < count
    sample, channel, row, column = _split(entry, of_out, CHANNELS_LAST)
    place = _load_place(packed, entry, part_size, is_entry, BITS)
    i, j = place // COLUMNS.kernel, place % COLUMNS.kernel
    # a window that has no entry has a place outside of the map
    where, is_inside = _source(sample, channel, row, column, i, j, of_x, is_entry, ROWS, COLUMNS)
    value = tl.load(x + where, mask=is_inside, other=float("-inf"))
    tl.store(out + _offset(sample, channel, row, column, of_out), value, mask=is_entry)
