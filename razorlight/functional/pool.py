"""Pooling: of maxima, where in its window each stood is stored; of means, nothing."""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.codecs.packing import pack, unpack
from razorlight.functional.backward import once_differentiable
from razorlight.functional.linear_map import linear_map
from razorlight.functional.sizes import Size, each
from razorlight.records import Record, join
from razorlight.sharing import Storage, find, leave, one_of_several


class _Windows(NamedTuple):
    """The windows of a pooling, each a pair (rows, columns)."""

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]

    @property
    def bits(self) -> int:
        """Of a place in a window."""
        return next(bits for bits in (2, 4, 8) if math.prod(self.kernel) <= 2**bits)

    def places(self, index: Tensor, width: int) -> Tensor:
        """Places in their windows of indices into maps of ``width`` columns."""
        y = index // width
        x = index - y * width  # a remainder takes as long as one more division
        origin_y, origin_x = self._origins(index)
        row, column = (
            distance // step if step > 1 else distance
            for distance, step in zip((y - origin_y, x - origin_x), self.dilation, strict=True)
        )
        return (row * self.kernel[1] + column).to(torch.uint8)

    def indices(self, places: Tensor, width: int) -> Tensor:
        """Inverse of :meth:`places`."""
        row, column = (torch.arange(size, device=places.device) for size in self.kernel)
        distances = row[:, None] * (self.dilation[0] * width) + column * self.dilation[1]
        # looked up, for a division takes several times as long on a CPU
        distance = distances.flatten().index_select(0, places.flatten().to(torch.int32))
        origin_y, origin_x = self._origins(places)
        return distance.view_as(places) + (origin_y * width + origin_x)

    def _origins(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Input row ``(H, 1)`` and column ``(W,)`` of each window's first entry, with padding."""
        rows, columns = (
            torch.arange(size, device=pooled.device) * stride - padding
            for size, stride, padding in zip(
                pooled.shape[-2:], self.stride, self.padding, strict=True
            )
        )
        return rows[:, None], columns


class _MaxPool2d(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: _Windows, ceil: bool) -> tuple[Tensor, ...]:
        out, index = torch.ops.aten.max_pool2d_with_indices(x, *windows, ceil)
        packed = pack(windows.places(index, x.shape[-1]).flatten(), windows.bits)
        ctx.save_for_backward(*packed)
        ctx.mark_non_differentiable(*packed)
        ctx.windows, ctx.shape = windows, x.shape
        return out, *packed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        index = _index(
            *ctx.saved_tensors, windows=ctx.windows, shape=grad.shape, width=ctx.shape[-1]
        )
        d_x = grad.new_zeros(*ctx.shape[:-2], ctx.shape[-2] * ctx.shape[-1])
        d_x.scatter_add_(-1, index.flatten(-2), grad.flatten(-2))
        return d_x.view(ctx.shape), None, None


def _index(*packed: Tensor, windows: _Windows, shape: torch.Size, width: int) -> Tensor:
    places = unpack(packed, windows.bits, [math.prod(shape)]).view(shape)
    return windows.indices(places, width)


def _pick(value_and_index: list[Tensor]) -> Tensor:
    value, index = value_and_index
    return value.flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)


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

    Two, four or eight bits an output entry are stored (its place in the window), where torch keeps
    the input and int64 indices. The window must have at most 256 entries; ``storage`` says only
    whether a record of the input goes on.
    """
    sizes = (each(size, 2) for size in (kernel_size, stride or kernel_size, padding, dilation))
    windows = _Windows(*sizes)
    out, *packed = _MaxPool2d.apply(input, windows, ceil_mode)
    out = one_of_several(out)
    if known := find(input, storage):
        index = partial(_index, windows=windows, shape=out.shape, width=input.shape[-1])
        leave(out, join(known, Record(tuple(packed), index)).then(_pick, fresh=True), storage)
    return out


def avg_pool2d(storage: Storage, input: Tensor, *sizes: Any, **options: Any) -> Tensor:
    """:func:`torch.nn.functional.avg_pool2d`; exact, and nothing is stored."""
    return linear_map(lambda x: F.avg_pool2d(x, *sizes, **options), input)


def adaptive_avg_pool2d(storage: Storage, input: Tensor, output_size: Any) -> Tensor:
    """:func:`torch.nn.functional.adaptive_avg_pool2d`; exact, and nothing is stored."""
    return linear_map(lambda x: F.adaptive_avg_pool2d(x, output_size), input)
