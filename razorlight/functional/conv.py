"""Convolutions, plain and transposed, of 1 to 3 dims. Their input is stored."""

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

    The gradients of ``input`` and ``bias`` are exact. Nothing is stored if ``weight`` is frozen.

    Args:
        plan: the plan by which ``input`` is stored for the gradient of ``weight``.
        input: ``(batch, in, *spatial)`` or ``(in, *spatial)``.
        weight: ``(out, in / groups, *kernel)``.
        bias: ``(out,)``.
        stride: one number for all spatial dims, or one for each; likewise the next two.
        padding: number of zeros added on both sides, or "valid", or "same".
        dilation: spacing of the kernel's entries.
        groups: number of groups of input and output channels.

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
    """:func:`torch.nn.functional.conv_transpose2d` (and 1d, 3d); stored as in :func:`conv`.

    Args:
        plan: the plan by which ``input`` is stored for the gradient of ``weight``.
        input: ``(batch, in, *spatial)`` or ``(in, *spatial)``.
        weight: ``(in, out / groups, *kernel)``.
        bias: ``(out,)``.
        stride: one number for all spatial dims, or one for each; likewise the other sizes.
        padding: number of entries taken off both sides of the output.
        output_padding: number of entries added to one side of the output.
        groups: number of groups of input and output channels.
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

    torch would keep the whole input for "reflect" and "replicate". ``plan`` is not used.
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
    """Turn "valid" or "same" into numbers, and pad ``x`` where the two sides differ."""
    if name == "valid":
        return x, [0] * len(kernel)
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in totals):
        # as in torch: the odd row or column is added at the end; the convolution pads the rest
        x = F.pad(x, [side for total in reversed(totals) for side in (0, total % 2)])
    return x, [total // 2 for total in totals]


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...], dtype: torch.dtype
) -> Tensor:
    bias = None if bias is None else bias.to(dtype)
    return torch.convolution(x.to(dtype), weight.to(dtype), bias, *geometry)


@dataclass(eq=False)
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
            return self._in_chunks(grad, record, weight, needs)
        # The gradient of the input needs the shape of the input, and none of its values.
        x = grad.new_empty(()).expand(self.shape)
        if grad.ndim == 4 and grad.is_contiguous(memory_format=torch.channels_last):
            # torch takes the memory format from the input or the weight, and this input has none
            weight = weight.clone(memory_format=torch.channels_last)
        return self._gradients(grad, x, weight, needs)

    def _gradients(self, grad: Tensor, x: Tensor, weight: Tensor, needs: Needs) -> Gradients:
        bias_shape = [grad.shape[1]] if needs[2] else None
        options = (bias_shape, *self.geometry, [*needs])
        return torch.ops.aten.convolution_backward(grad, x, weight, *options)

    def _in_chunks(self, grad: Tensor, record: Record, weight: Tensor, needs: Needs) -> Gradients:
        """The gradients, with an input that is read in chunks if it is large."""
        chunks, read = record.in_chunks(self.shape)
        if len(chunks) == 1:
            return self._gradients(grad, read(slice(None)), weight, needs)
        d_x: Tensor | None = None
        sums: list[Tensor | None] = [None, None]
        for samples in chunks:
            part, *more = self._gradients(grad[samples], read(samples), weight, needs)
            if part is not None:
                d_x = room_for(chunks, part) if d_x is None else d_x
                d_x[samples] = part
            sums = [accumulate(*pair) for pair in zip(sums, more, strict=True)]
        return d_x, *(None if total is None else total.to(grad.dtype) for total in sums)
