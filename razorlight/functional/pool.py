"""Pooling. Max pooling stores the place of each maximum in its window; mean pooling nothing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from razorlight._torch import is_gpu, is_traced
from razorlight.codecs.kernels import Pooling, PoolKernels, pool_kernels_for
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
    Record,
    as_it_is,
    attach_record,
    carry_record,
    find,
    join,
)

_BITS = (2, 4, 8)  # which fill bytes, so that one tensor holds all places


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
        return next(bits for bits in _BITS if math.prod(self.kernel) <= 2**bits)

    def pooled(self, sizes: Sequence[int], ceil: bool) -> list[int] | None:
        """The spatial sizes of the output; None if torch refuses the windows."""
        pooled = []
        for size, kernel, stride, padding, dilation in zip(sizes, *self, strict=True):
            reach = size + 2 * padding - dilation * (kernel - 1) - 1
            count = (-(-reach // stride) if ceil else reach // stride) + 1
            if ceil and (count - 1) * stride >= size + padding:
                count -= 1  # the last window would begin outside
            if reach < 0 or 2 * padding > kernel:
                return None
            pooled.append(count)
        return pooled

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
        return looked_up.view_as(places).add_(origin)

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


_MOST_PLACES = 64  # of a window whose places are written out in a kernel, one by one

_POOLS: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {
    2: torch.ops.aten.max_pool2d_with_indices,
    3: torch.ops.aten.max_pool3d_with_indices,
}


@dataclass(eq=False)
class _MaxPool(Operation):
    """A max pooling. The place of each maximum is stored, in the order of the output's memory."""

    windows: _Windows
    ceil: bool
    shape: torch.Size
    channels_last: bool

    def forward(self, needs: Needs, x: Tensor) -> Result:
        if (kernels := self._kernels(x)) and (sizes := self.windows.pooled(x.shape[2:], self.ceil)):
            out, places = kernels.pool(x, self._how, sizes)
            return Result(out, by_products=(places,))
        rank = self.windows.rank
        out, index = _POOLS[rank](x, *self.windows, self.ceil)
        places = self.windows.places(index, x.shape[-rank:])
        places = places.movedim(1, -1) if self.channels_last else places
        return Result(out, by_products=tuple(pack(places.flatten(), self.windows.bits)))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        (places,) = saved
        assert places is not None
        if kernels := self._kernels(grad):
            return (kernels.gradient(grad, places, self._how, self.shape),)
        rank = self.windows.rank
        d_x = grad.new_zeros(*self.shape[:-rank], math.prod(self.shape[-rank:]))
        index = self._index(places, grad.shape)
        d_x.scatter_add_(-1, index.flatten(-rank), grad.flatten(-rank))
        return (d_x.view(self.shape),)

    def pick(self, value: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
        """The maxima, in ``shape``, of a value near the one that was pooled."""
        if kernels := self._kernels(value):
            return kernels.pick(value, places, self._how, shape[2:])
        rank, index = self.windows.rank, self._index(places, shape)
        return value.flatten(-rank).gather(-1, index.flatten(-rank)).view(shape)

    def _index(self, places: Tensor, shape: torch.Size) -> Tensor:
        """The index of each maximum in its map, int64, in the shape of the output."""
        in_memory = shape
        if self.channels_last:
            in_memory = torch.Size((shape[0], *shape[2:], shape[1]))
        unpacked = unpack([places], self.windows.bits, [math.prod(shape)]).view(in_memory)
        unpacked = unpacked.movedim(-1, 1) if self.channels_last else unpacked
        return self.windows.indices(unpacked, self.shape[-self.windows.rank :])

    @property
    def _how(self) -> Pooling:
        return Pooling(self.windows, self.windows.bits, self.channels_last)

    def _kernels(self, like: Tensor) -> PoolKernels | None:
        if is_traced() or math.prod(self.windows.kernel) > _MOST_PLACES:
            return None
        return pool_kernels_for(like, self.shape)


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
    if rank == 3 and not is_gpu(input.device) and torch.is_autocast_enabled(input.device.type):
        # autocast casts for F.max_pool3d, but not for the native operation
        input = input.to(torch.promote_types(input.dtype, torch.float32))
    channels_last = input.ndim == 4 and _is_channels_last(input)
    operation = _MaxPool(windows, ceil_mode, input.shape, channels_last)
    out, (places,) = run_with_by_products(operation, NOTHING, input)
    if known := find(input, plan):
        pick = partial(_pick, pool=operation, shape=out.shape)
        attach_record(out, join(known, as_it_is(places)).then(pick, returns_new=True), plan)
    return out


def _pick(value_and_places: list[Tensor], pool: _MaxPool, shape: torch.Size) -> Tensor:
    value, places = value_and_places
    return pool.pick(value, places, shape)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


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
