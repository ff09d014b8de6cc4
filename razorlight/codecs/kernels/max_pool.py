"""Max pooling in two dims on a GPU: its Triton kernels, launched.

The places of maxima are packed in the order of the memory of the output, whose memory format is
that of the input.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from razorlight.codecs.kernels import Pooling
from razorlight.codecs.kernels import max_pool_kernels as kernels
from razorlight.codecs.kernels.launch import launch
from razorlight.codecs.kernels.max_pool_kernels import Axis, Map

_BLOCK = 256  # bytes of places, or entries, of one program


def pool(x: Tensor, how: Pooling, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The maxima of windows, and their packed places.

    Args:
        x: ``(batch, channels, rows, columns)``.
        how: says how ``x`` is pooled.
        sizes: the rows and columns of the output.
    """
    out = _empty(x, (*x.shape[:2], *sizes), how)
    count = out.numel()
    packed = x.new_empty(-(-count // (8 // how.bits)), dtype=torch.uint8)
    _launch(kernels.pool, len(packed), (x, out, packed, count), x, out, packed, how)
    return out, packed


def gradient(grad: Tensor, packed: Tensor, how: Pooling, shape: torch.Size) -> Tensor:
    """The gradient of the input, of ``shape``.

    Args:
        grad: the gradient of the output.
        packed: the places that :func:`pool` returned.
        how: says how the input was pooled.
        shape: the shape of the input.
    """
    d_x = _empty(grad, shape, how)
    count = d_x.numel()
    _launch(kernels.gradient, count, (grad, packed, d_x, count), d_x, grad, packed, how)
    return d_x


def pick(value: Tensor, packed: Tensor, how: Pooling, sizes: Sequence[int]) -> Tensor:
    """For each window the entry of ``value`` at the place of the maximum.

    Args:
        value: in the shape of the input.
        packed: the places that :func:`pool` returned.
        how: says how the input was pooled.
        sizes: the rows and columns of the output.
    """
    out = _empty(value, (*value.shape[:2], *sizes), how)
    count = out.numel()
    _launch(kernels.pick, count, (value, packed, out, count), value, out, packed, how)
    return out


def _empty(like: Tensor, shape: Sequence[int], how: Pooling) -> Tensor:
    form = torch.channels_last if how.channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)


def _launch(
    kernel: Any,
    work: int,
    given: tuple[Any, ...],
    of_input: Tensor,
    of_output: Tensor,
    packed: Tensor,
    how: Pooling,
) -> None:
    rows, columns = (Axis(*along) for along in zip(*how.windows, strict=True))
    launch(
        kernel, -(-work // _BLOCK), packed,
        *given, len(packed), _map(of_input), _map(of_output),
        ROWS=rows, COLUMNS=columns, CHANNELS_LAST=how.channels_last, BITS=how.bits, BLOCK=_BLOCK,
    )  # fmt: skip


def _map(x: Tensor) -> Map:
    return Map(*x.shape[1:], *x.stride())
