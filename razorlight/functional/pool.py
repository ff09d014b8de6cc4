"""Pooling. Max pooling stores the place of each maximum in its window; mean pooling nothing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from razorlight.codecs.packing import pack, unpack
from razorlight.functional.linear_map import linear_map
from razorlight.functional.operation import (
    Gradients,
    Needs,
    Operation,
    Result,
    Saved,
    run_with_by_products,
)
from razorlight.functional.sizes import Size, each
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import (
    NOTHING,
    Reader,
    Record,
    attach_record,
    carry_record,
    find,
    join,
)


class _Windows(NamedTuple):
    """The windows of a pooling. Each field is a list with one entry for each spatial dim."""

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]

    @property
    def rank(self) -> int:
        """The number of spatial dims."""
        return len(self.kernel)

    @property
    def bits(self) -> int:
        """The number of bits that a place in a window takes."""
        return next(bits for bits in (2, 4, 8) if math.prod(self.kernel) <= 2**bits)

    def places(self, index: Tensor, sizes: Sequence[int]) -> Tensor:
        """Turn the indices of maxima in their maps into places in their windows.

        Args:
            index: indices into the flattened spatial dims of the input.
            sizes: the spatial sizes of the input.
        """
        place = index.new_zeros(())
        steps = _strides(self.kernel)
        origins = self._origins(index)
        for dim in reversed(range(self.rank)):
            # subtracted, because a remainder takes as long as another division
            rest = index // sizes[dim] if dim else None
            at = index if rest is None else index - rest * sizes[dim]
            distance = at - origins[dim]
            if self.dilation[dim] > 1:
                distance = distance // self.dilation[dim]
            place = place + (distance * steps[dim] if steps[dim] > 1 else distance)
            index = index if rest is None else rest
        return place.to(torch.uint8)

    def indices(self, places: Tensor, sizes: Sequence[int]) -> Tensor:
        """Undo :meth:`places`."""
        distance = torch.zeros((), dtype=torch.int64, device=places.device)
        origin = torch.zeros((), dtype=torch.int64, device=places.device)
        origins = self._origins(places)
        for dim, step in enumerate(_strides(sizes)):
            entries = torch.arange(self.kernel[dim], device=places.device)
            distance = distance[..., None] + entries * (self.dilation[dim] * step)
            origin = origin + origins[dim] * step
        # The distances are looked up: on a CPU a division takes several times as long.
        looked_up = distance.flatten().index_select(0, places.flatten().to(torch.int32))
        return looked_up.view_as(places) + origin

    def _origins(self, pooled: Tensor) -> list[Tensor]:
        """For each spatial dim, where each window begins in the input: below 0 in the padding.

        The tensors broadcast to ``pooled``.
        """
        origins = []
        for dim in range(self.rank):
            size = pooled.shape[dim - self.rank]
            first = torch.arange(size, device=pooled.device) * self.stride[dim] - self.padding[dim]
            origins.append(first.view(-1, *(1,) * (self.rank - 1 - dim)))
        return origins


def _strides(sizes: Sequence[int]) -> list[int]:
    """The strides of a contiguous tensor of these sizes."""
    return [math.prod(sizes[dim + 1 :]) for dim in range(len(sizes))]


@dataclass(frozen=True)
class _MaxPool(Operation):
    windows: _Windows
    ceil: bool
    shape: torch.Size

    def forward(self, needs: Needs, x: Tensor) -> Result:
        windows = self.windows
        out, index = _POOLS[windows.rank](x, *windows, self.ceil)
        packed = pack(windows.places(index, x.shape[-windows.rank :]).flatten(), windows.bits)
        return Result(out, by_products=tuple(packed))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        rank = self.windows.rank
        index = _Index(self.windows, grad.shape, self.shape[-rank:])(*saved)  # type: ignore[arg-type]
        d_x = grad.new_zeros(*self.shape[:-rank], math.prod(self.shape[-rank:]))
        d_x.scatter_add_(-1, index.flatten(-rank), grad.flatten(-rank))
        return (d_x.view(self.shape),)


_POOLS: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {
    2: torch.ops.aten.max_pool2d_with_indices,
    3: torch.ops.aten.max_pool3d_with_indices,
}


@dataclass(frozen=True)
class _Index(Reader):
    """Reads the index of each maximum in its map, int64, from its place in its window.

    Attributes:
        windows: the windows of the pooling.
        shape: the shape of the output.
        sizes: the spatial sizes of the input.
    """

    windows: _Windows
    shape: torch.Size
    sizes: torch.Size

    def __call__(self, *stored: Tensor) -> Tensor:
        places = unpack(stored, self.windows.bits, [math.prod(self.shape)]).view(self.shape)
        return self.windows.indices(places, self.sizes)


def _pick(value_and_index: list[Tensor], rank: int) -> Tensor:
    value, index = value_and_index
    return value.flatten(-rank).gather(-1, index.flatten(-rank)).view(index.shape)


def max_pool(
    plan: LayerPlan,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    rank: int,
) -> Tensor:
    """:func:`torch.nn.functional.max_pool2d` (or 3d, by ``rank``); the gradient is exact.

    The place of each maximum in its window is stored, in two, four or eight bits. torch would keep
    the input and int64 indices. A window must have at most 256 entries. ``plan`` says only whether
    records are shared.
    """
    sizes = (each(size, rank) for size in (kernel_size, stride or kernel_size, padding, dilation))
    windows = _Windows(*sizes)
    if rank == 3 and not input.is_cuda and torch.is_autocast_enabled(input.device.type):
        # autocast casts for F.max_pool3d, but not for the native operation
        input = input.to(torch.promote_types(input.dtype, torch.float32))
    operation = _MaxPool(windows, ceil_mode, input.shape)
    out, packed = run_with_by_products(operation, NOTHING, input)
    if known := find(input, plan):
        index = Record(tuple(packed), _Index(windows, out.shape, input.shape[-rank:]))
        pick = partial(_pick, rank=rank)
        attach_record(out, join(known, index).then(pick, returns_new=True), plan)
    return out


def max_pool1d(
    plan: LayerPlan,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.max_pool1d`, computed as torch does: on maps with a single row."""
    (kernel,), (step,) = each(kernel_size, 1), each(stride or kernel_size, 1)
    (margin,), (spacing,) = each(padding, 1), each(dilation, 1)
    rows = input.unsqueeze(-2)
    carry_record(input, rows, _one_row)
    sizes = ((1, kernel), (1, step), (0, margin), (1, spacing))
    pooled = max_pool(plan, rows, *sizes, ceil_mode, rank=2)
    out = pooled.squeeze(-2)
    carry_record(pooled, out, _no_row)
    return out


def _one_row(x: Tensor) -> Tensor:
    return x.unsqueeze(-2)


def _no_row(x: Tensor) -> Tensor:
    return x.squeeze(-2)


def linear_pool(
    plan: LayerPlan, input: Tensor, *sizes: Any, pool: Callable[..., Tensor], **options: Any
) -> Tensor:
    """A pooling of means, ``pool(input, *sizes, **options)``. It is exact and stores nothing."""
    return linear_map(lambda x: pool(x, *sizes, **options), input)
