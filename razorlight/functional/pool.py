"""Max pooling that stores where in its window each maximum stood."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from razorlight.functional.sizes import Size, each
from razorlight.records import Storage


class _MaxPool2d(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Size, stride: Size, padding: Size, dilation: Size, ceil: bool
    ) -> Tensor:
        out, index = torch.ops.aten.max_pool2d_with_indices(
            x, *(each(size, 2) for size in (kernel, stride, padding, dilation)), ceil
        )
        ctx.shape, ctx.width = x.shape, each(kernel, 2)[1]
        ctx.geometry = [each(size, 2) for size in (stride, padding, dilation)]
        origin_y, origin_x = _origins(out, ctx.geometry)
        (dilation_y, dilation_x) = ctx.geometry[2]
        row = (index // x.shape[-1] - origin_y) // dilation_y
        column = (index % x.shape[-1] - origin_x) // dilation_x
        ctx.save_for_backward((row * ctx.width + column).to(torch.uint8))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        place = ctx.saved_tensors[0].to(torch.int64)
        origin_y, origin_x = _origins(grad, ctx.geometry)
        (dilation_y, dilation_x) = ctx.geometry[2]
        row = place // ctx.width * dilation_y + origin_y
        column = place % ctx.width * dilation_x + origin_x
        index = row * ctx.shape[-1] + column
        d_x = grad.new_zeros(*ctx.shape[:-2], ctx.shape[-2] * ctx.shape[-1])
        d_x.scatter_add_(-1, index.flatten(-2), grad.flatten(-2))
        return d_x.view(ctx.shape), None, None, None, None, None


def max_pool2d(
    storage: Storage,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.max_pool2d`; exact.

    One uint8 an output entry is stored (its place in the window), where torch keeps the input and
    int64 indices. The window must have at most 256 entries; ``storage`` is not used.
    """
    stride = stride or kernel_size
    return _MaxPool2d.apply(input, kernel_size, stride, padding, dilation, ceil_mode)


def _origins(out: Tensor, geometry: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Input row ``(H, 1)`` and column ``(W,)`` of each window's first entry, padding included."""
    (stride_y, stride_x), (padding_y, padding_x), _ = geometry
    rows = torch.arange(out.shape[-2], device=out.device) * stride_y - padding_y
    columns = torch.arange(out.shape[-1], device=out.device) * stride_x - padding_x
    return rows[:, None], columns
