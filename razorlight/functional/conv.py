"""Convolutions, plain and transposed, of 1 to 3 dimensions, whose input is stored for backward."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.functional.autocast import matmul_dtype
from razorlight.functional.backward import accumulate, once_differentiable
from razorlight.functional.linear_map import linear_map
from razorlight.functional.sizes import Size, each
from razorlight.records import NOTHING, Read, in_pieces, room_for
from razorlight.sharing import Storage, find, leave_product, store


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: tuple[Any, ...],
        dtype: torch.dtype,
        read: Read | None,
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, *stored)
        ctx.geometry, ctx.dtype, ctx.read, ctx.shape = geometry, dtype, read, x.shape
        return _run(x, weight, bias, geometry=geometry, dtype=dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *stored = ctx.saved_tensors
        weight = weight.to(ctx.dtype)
        options = (ctx.geometry, list(ctx.needs_input_grad[:3]))
        if ctx.read:
            gradients = _gradients_in_pieces(
                grad, *in_pieces(ctx.read, stored, ctx.shape), weight, *options
            )
        else:  # the input's gradient needs the shape of the input and none of its values
            x = grad.new_empty(()).expand(ctx.shape)
            if grad.ndim == 4 and grad.is_contiguous(memory_format=torch.channels_last):
                # then by the weight the kernel sees in which memory format it is
                weight = weight.clone(memory_format=torch.channels_last)
            gradients = _gradients(grad, x, weight, *options)
        return *gradients, None, None, None, *(None,) * len(stored)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...], needs: list[bool]
) -> Sequence[Tensor | None]:
    """Of input, weight and bias, where needed."""
    bias_shape = [grad.shape[1]] if needs[2] else None
    return torch.ops.aten.convolution_backward(grad, x, weight, bias_shape, *geometry, needs)


def _gradients_in_pieces(
    grad: Tensor,
    pieces: Sequence[slice],
    value: Callable[[slice], Tensor],
    weight: Tensor,
    geometry: tuple[Any, ...],
    needs: list[bool],
) -> Sequence[Tensor | None]:
    """:func:`_gradients` of an input that is never there whole, if it is large."""
    if len(pieces) == 1:
        return _gradients(grad, value(slice(None)), weight, geometry, needs)
    d_x: Tensor | None = None
    sums: list[Tensor | None] = [None, None]
    for samples in pieces:
        part, *more = _gradients(grad[samples], value(samples), weight, geometry, needs)
        if part is not None:
            d_x = room_for(pieces, part) if d_x is None else d_x
            d_x[samples] = part
        sums = [accumulate(*pair) for pair in zip(sums, more, strict=True)]
    return d_x, *(total if total is None else total.to(grad.dtype) for total in sums)


def _run(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...], dtype: torch.dtype
) -> Tensor:
    bias = None if bias is None else bias.to(dtype)
    return torch.convolution(x.to(dtype), weight.to(dtype), bias, *geometry)


def _convolution(
    storage: Storage, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any
) -> Tensor:
    if x.ndim == weight.ndim - 1:
        return _convolution(storage, x[None], weight, bias, *geometry)[0]
    dtype = matmul_dtype(x)
    record = store(x, storage, dtype, channels=1) if weight.requires_grad else NOTHING
    out: Tensor = _Convolution.apply(x, weight, bias, geometry, dtype, record.read, *record.tensors)
    known = record if weight.requires_grad else find(x, storage, dtype)
    function = partial(_run, geometry=geometry, dtype=dtype)
    leave_product(out, known, storage, function, weight, bias)
    return out


def conv(
    storage: Storage,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """:func:`torch.nn.functional.conv2d` (and 1d, 3d); ``input`` is stored.

    The gradients of ``input`` and ``bias`` are exact; nothing is stored if ``weight`` needs none.

    Args:
        storage: how ``input`` is stored for the gradient of ``weight``.
        input: ``(batch, in, *spatial)`` or ``(in, *spatial)``.
        weight: ``(out, in / groups, *kernel)``.
        bias: ``(out,)``.
        stride: one for all, or one for each spatial dimension; likewise the next two.
        padding: zeros added on both sides, or "valid", or "same".
        dilation: spacing of the kernel's entries.
        groups: of input and output channels.

    Returns:
        ``(batch, out, *spatial)``, bit for bit that of torch.
    """
    rank = weight.ndim - 2
    stride, dilation = each(stride, rank), each(dilation, rank)
    if isinstance(padding, str):
        input, padding = _named_padding(input, padding, weight.shape[2:], dilation)
    padding = each(padding, rank)
    return _convolution(
        storage, input, weight, bias, stride, padding, dilation, False, [0] * rank, groups
    )


def conv_transpose(
    storage: Storage,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """:func:`torch.nn.functional.conv_transpose2d`; stored and exact as in :func:`conv`.

    Args:
        storage: how ``input`` is stored for the gradient of ``weight``.
        input: ``(batch, in, *spatial)`` or ``(in, *spatial)``.
        weight: ``(in, out / groups, *kernel)``.
        bias: ``(out,)``.
        stride: one for all, or one for each spatial dimension; likewise below.
        padding: taken off both sides of the output.
        output_padding: added to one side of the output.
        groups: of input and output channels.
        dilation: spacing of the kernel's entries.
    """
    rank = weight.ndim - 2
    stride, padding, dilation, output_padding = (
        each(size, rank) for size in (stride, padding, dilation, output_padding)
    )
    return _convolution(
        storage, input, weight, bias, stride, padding, dilation, True, output_padding, groups
    )


def pad(
    storage: Storage,
    input: Tensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """:func:`torch.nn.functional.pad`; exact, and nothing is stored.

    torch keeps the whole input for "reflect" and "replicate". ``storage`` is not used.
    """
    if mode not in ("reflect", "replicate"):
        return F.pad(input, pad, mode, value)
    return linear_map(partial(F.pad, pad=pad, mode=mode), input)


def _named_padding(
    x: Tensor, name: str, kernel: torch.Size, dilation: list[int]
) -> tuple[Tensor, list[int]]:
    """Turn "valid" or "same" into numbers, padding ``x`` where the two sides differ."""
    if name == "valid":
        return x, [0] * len(kernel)
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in totals):
        # as in torch: the odd row or column goes behind, the rest is padded by the convolution
        x = F.pad(x, [side for total in reversed(totals) for side in (0, total % 2)])
    return x, [total // 2 for total in totals]
