"""Convolutions, plain and transposed, of 1 to 3 dimensions, whose input is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.functional.autocast import matmul_dtype
from razorlight.functional.linear_map import linear_map
from razorlight.functional.operation import (
    Gradients,
    Needs,
    Operation,
    Result,
    Saved,
    accumulate,
    run,
)
from razorlight.functional.sizes import Size, each
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import NOTHING, Record, attach_product, find, room_for, store


def conv(
    plan: LayerPlan,
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
        plan: how ``input`` is stored for the gradient of ``weight``.
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
    geometry = (stride, padding, dilation, False, [0] * rank, groups)
    return _convolve(plan, input, weight, bias, geometry)


def conv_transpose(
    plan: LayerPlan,
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
        plan: how ``input`` is stored for the gradient of ``weight``.
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
    geometry = (stride, padding, dilation, True, output_padding, groups)
    return _convolve(plan, input, weight, bias, geometry)


def pad(
    plan: LayerPlan,
    input: Tensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """:func:`torch.nn.functional.pad`; exact, and nothing is stored.

    torch keeps the whole input for "reflect" and "replicate". ``plan`` is not used.
    """
    if mode not in ("reflect", "replicate"):
        return F.pad(input, pad, mode, value)
    return linear_map(partial(F.pad, pad=pad, mode=mode), input)


def _convolve(
    plan: LayerPlan, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]
) -> Tensor:
    if x.ndim == weight.ndim - 1:
        return _convolve(plan, x[None], weight, bias, geometry)[0]
    dtype = matmul_dtype(x)
    record = store(x, plan, dtype, channels=1) if weight.requires_grad else NOTHING
    out = run(_Convolution(geometry, dtype, x.shape), record, x, weight, bias)
    known = record if weight.requires_grad else find(x, plan, dtype)
    attach_product(
        out, known, plan, partial(_product, geometry=geometry, dtype=dtype), weight, bias
    )
    return out


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


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...], dtype: torch.dtype
) -> Tensor:
    bias = None if bias is None else bias.to(dtype)
    return torch.convolution(x.to(dtype), weight.to(dtype), bias, *geometry)


@dataclass(frozen=True)
class _Convolution(Operation):
    geometry: tuple[Any, ...]
    dtype: torch.dtype
    shape: torch.Size

    def forward(self, needs: Needs, x: Tensor, weight: Tensor, bias: Tensor | None) -> Result:
        out = _product(x, weight, bias, geometry=self.geometry, dtype=self.dtype)
        return Result(out, (weight,))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        assert saved[0] is not None
        weight = saved[0].to(self.dtype)
        if record.reader:
            return self._in_pieces(grad, record, weight, needs)
        # the input's gradient needs the shape of the input and none of its values
        x = grad.new_empty(()).expand(self.shape)
        if grad.ndim == 4 and grad.is_contiguous(memory_format=torch.channels_last):
            # then by the weight the kernel sees in which memory format it is
            weight = weight.clone(memory_format=torch.channels_last)
        return self._gradients(grad, x, weight, needs)

    def _gradients(self, grad: Tensor, x: Tensor, weight: Tensor, needs: Needs) -> Gradients:
        bias_shape = [grad.shape[1]] if needs[2] else None
        options = (bias_shape, *self.geometry, [*needs])
        return torch.ops.aten.convolution_backward(grad, x, weight, *options)

    def _in_pieces(self, grad: Tensor, record: Record, weight: Tensor, needs: Needs) -> Gradients:
        """The gradients with an input that is never there whole, if it is large."""
        pieces, read = record.in_pieces(self.shape)
        if len(pieces) == 1:
            return self._gradients(grad, read(slice(None)), weight, needs)
        d_x: Tensor | None = None
        sums: list[Tensor | None] = [None, None]
        for samples in pieces:
            part, *more = self._gradients(grad[samples], read(samples), weight, needs)
            if part is not None:
                d_x = room_for(pieces, part) if d_x is None else d_x
                d_x[samples] = part
            sums = [accumulate(*pair) for pair in zip(sums, more, strict=True)]
        return d_x, *(None if total is None else total.to(grad.dtype) for total in sums)
