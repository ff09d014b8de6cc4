"""The backward of norms on a GPU, from the codes of the normalised input: the kernels, launched."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from razorlight.codecs.kernels import Codes, norm_kernels
from razorlight.codecs.kernels.launch import launch
from razorlight.codecs.kernels.norm_kernels import Rows
from razorlight.codecs.kernels.operands import divisor, power_of_two
from razorlight.codecs.kernels.uniform import as_encoded, format_of, geometry_of
from razorlight.codecs.uniform import Layout, Uniform

_MOST_COLUMNS = 8192  # a program reads whole rows
_FEW_COLUMNS = 256  # of a row, where a program need not read all of it
_TILE = 2048  # entries that a program of four warps reads at once
_VECTOR = 32  # bytes of a gradient that a thread reads at once, if they lie well
# Programs on each multiprocessor. Each one writes sums of its own.
_ROW_PROGRAMS = 4  # so many run at once
_CHANNEL_PROGRAMS = 8  # some of which run after others


def row_gradients(
    codes: Codes,
    grad: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    needs: Sequence[bool],
    is_centred: bool,
) -> tuple[Tensor | None, ...] | None:
    """The gradients of a layer norm, or if not ``is_centred``, of an RMS norm, in one launch.

    Torch code computes them in float64, and for rows of more than 8192 entries.

    Args:
        codes: the codes of the normalised input.
        grad: the gradient of the output, in the shape of the input.
        weight: the scale, in the shape of a row, or None.
        rstd: 1/std of each row.
        needs: whether the gradients of input, weight and bias are needed.
        is_centred: Whether the mean was subtracted from the input.
    """
    width = grad.numel() // rstd.numel()
    if not _serves(grad, rstd, needs) or width > _MOST_COLUMNS:
        return None
    columns = power_of_two(width)
    tile = max(1, _TILE // columns)
    rows, arguments, constants = _decoding(codes, grad, width)
    programs = min(-(-rows.total // tile), _ROW_PROGRAMS * _multiprocessors(grad.device))
    grad = grad.contiguous()
    d_x = torch.empty_like(grad) if needs[0] else None
    partial_sums = rstd.new_empty(sum(needs[1:]), programs, width)
    launch(
        norm_kernels.row_gradients, programs, grad,
        grad, _contiguous(weight), rstd.contiguous(), d_x, *_where(partial_sums, needs[1:]),
        *arguments, IS_CENTRED=is_centred, ROWS=tile, COLUMNS=columns, **constants,
        num_warps=max(4, columns * tile // 512),
    )  # fmt: skip
    return d_x, *_where(_sums(partial_sums), needs[1:])


def channel_gradients(
    codes: Codes,
    grad: Tensor,
    weight: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...] | None:
    """The gradients of a batch norm: in two launches, and one of torch between them.

    Torch code computes them in float64.

    Args:
        codes: the codes of the normalised input, minus a centre, with the sign of ``rstd``.
        grad: the gradient of the output, ``(batch, channels, ...)``.
        weight: the scale ``(channels,)``, or None.
        mean: minus the centre of each channel, or None for zeros.
        rstd: 1/std of each channel, with a sign.
        needs: whether the gradients of input, weight and bias are needed.
    """
    if not _serves(grad, rstd, needs):
        return None
    channels = grad.shape[1]
    grad = (grad.movedim(1, -1) if codes.channels_last else grad).contiguous()
    in_columns = codes.channels_last or grad.numel() == len(grad) * channels
    width = channels if in_columns else math.prod(grad.shape[2:])
    columns = min(_FEW_COLUMNS, power_of_two(width))
    tile = _TILE // columns
    rows, arguments, constants = _decoding(codes, grad, width)
    blocks = -(-channels // columns) if in_columns else channels
    count = rows.total if in_columns else len(grad)
    most = -(-_CHANNEL_PROGRAMS * _multiprocessors(grad.device) // blocks)
    splits = min(-(-count // tile), most)
    kernel, programs = norm_kernels.channel_gradients, blocks * splits
    given = grad, _contiguous(weight), _contiguous(mean), rstd.contiguous()
    constants |= {"IN_COLUMNS": in_columns, "ROWS": tile, "COLUMNS": columns, "num_warps": 4}
    is_summed = (True, True) if needs[0] else needs[1:]
    partial_sums = rstd.new_empty(sum(is_summed), splits, channels)
    more = *arguments, channels, splits
    summed = _where(partial_sums, is_summed)
    launch(kernel, programs, grad, *given, None, None, *summed, *more, **constants)
    sums = _sums(partial_sums)
    d_x = None
    if needs[0]:
        d_x = torch.empty_like(grad)
        launch(kernel, programs, grad, *given, sums, d_x, None, None, *more, **constants)
        d_x = d_x.movedim(-1, 1) if codes.channels_last else d_x
    gradients = zip(_where(sums, is_summed), needs[1:], strict=True)
    return d_x, *(d if is_needed else None for d, is_needed in gradients)


def _serves(grad: Tensor, rstd: Tensor, needs: Sequence[bool]) -> bool:
    return rstd.dtype == torch.float32 and grad.dtype != torch.float64 and any(needs[:2])


def _decoding(
    codes: Codes, grad: Tensor, width: int
) -> tuple[Rows, tuple[Any, ...], dict[str, Any]]:
    """The rows of ``width`` entries, and the arguments and constants by which they are decoded."""
    assert isinstance(codes.codec, Uniform)
    layout = codes.codec.layout(codes.shape)
    lie, aligned = _how_rows_lie(layout, width)
    eighth = layout.codes[1] // 8
    of_place, total = max(1, layout.inner // width), math.prod(codes.shape) // width
    rows = Rows(total, width, of_place, eighth, divisor(of_place), divisor(eighth))
    constants = {
        **format_of(codes.codec, layout),
        "LIE": lie,
        "VECTOR": math.gcd(eighth, aligned, _VECTOR // grad.itemsize),
        "enable_fp_fusion": False,  # decoding fuses only what torch fuses
    }
    encoded = as_encoded(codes.codec, codes.shape, codes.tensors)
    return rows, (encoded, rows, geometry_of(layout)), constants


def _how_rows_lie(layout: Layout, width: int) -> tuple[str, int]:
    """How a kernel finds the codes of a row, and a number that divides where its codes start."""
    if layout.inner % width == 0:
        return "in places", width
    padded = layout.groups * layout.size * layout.inner
    if layout.line * layout.inner == width and padded <= layout.codes[1] // 8:
        return "as lines", padded
    return "anywhere", 1


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":  # Triton's interpreter runs one program after the other
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _sums(partial: Tensor) -> Tensor:
    """The sums ``(sums, channels)`` of partial ones ``(sums, programs, channels)``."""
    return partial[:, 0] if partial.shape[1] == 1 or not len(partial) else partial.sum(1)


def _where(parts: Tensor, is_there: Sequence[bool]) -> list[Tensor | None]:
    """``parts`` in turn, where there is one, and None elsewhere."""
    given = iter(parts)
    return [next(given) if there else None for there in is_there]
