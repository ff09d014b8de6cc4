"""Normalisations: one record of the normalised input, for their backward and what follows."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from razorlight.codecs import Codec, encode, encode_made
from razorlight.records import (
    NOTHING,
    Read,
    Record,
    Storage,
    encoded_record,
    find,
    in_memory,
    leave,
    one_of_several,
    store,
)

aten = torch.ops.aten


class _Norm(ABC):
    """A kind of norm by batch statistics: ``weight * (x - mean) * rstd + bias``."""

    def affine_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape in which weight and bias broadcast to ``x``: of channels first."""
        return (-1, *(1,) * (x.ndim - 2))

    def recorded_shape(self, x: Tensor) -> torch.Size:
        """The shape ``(batch, tokens, channels)`` in which it is stored, if its channels are last.

        A map with its channels first is one channel: once normalised, all have the same size.
        """
        return torch.Size((len(x), math.prod(x.shape[1:]), 1))

    @abstractmethod
    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The output, and mean and 1/std in shapes that broadcast to ``x``."""

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        normalised: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> tuple[Tensor | None, ...]:
        """The gradients of input, weight and bias, where needed, from ``(x - mean) * rstd``."""


class _Normalise(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        norm: _Norm,
        storage: Storage,
        read: Read | None,
        *stored: Tensor,
    ) -> tuple[Tensor, ...]:
        out, mean, rstd = norm.forward(x, weight, bias)
        encoded = () if read else _encode(storage.codec, x, mean, rstd, norm)
        record = _standardised(x, norm, storage, Record(stored, read), mean, rstd, encoded)
        ctx.save_for_backward(weight, bias, rstd, *record.tensors)
        ctx.norm, ctx.read, ctx.stored = norm, record.read, len(stored)
        ctx.mark_non_differentiable(mean, rstd, *encoded)
        return out, mean, rstd, *encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, rstd, *stored = ctx.saved_tensors
        normalised = ctx.read(*stored).to(grad.dtype)
        needs = list(ctx.needs_input_grad[:3])
        gradients = ctx.norm.backward(grad, normalised, rstd, weight, bias, needs)
        return *gradients, None, None, None, *(None,) * ctx.stored


def _normalise(
    storage: Storage, x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: _Norm
) -> Tensor:
    # as published, the input is what is stored; where records are shared, the normalised input is:
    # its entries are of one size, whatever the scale of the input
    source = (find(x, storage) if storage.shares else store(x, storage)) or NOTHING
    out, mean, rstd, *encoded = _Normalise.apply(
        x, weight, bias, norm, storage, source.read, *source.tensors
    )
    out = one_of_several(out)
    record = _standardised(x, norm, storage, source, mean, rstd, encoded)
    affine = (None if p is None else p.view(norm.affine_shape(x)) for p in (weight, bias))
    function = partial(_affine, dtype=out.dtype, overwrite=record.fresh)
    leave(out, record.then(function, *affine, fresh=True), storage)
    return out


def _standardised(
    x: Tensor,
    norm: _Norm,
    storage: Storage,
    source: Record,
    mean: Tensor,
    rstd: Tensor,
    encoded: Sequence[Tensor],
) -> Record:
    """The record of the normalised input: encoded, or derived from that of the input."""
    if source.read:
        return source.then(_standardise, mean, rstd, fresh=True)
    lying = in_memory(x)
    if lying is not x:
        return encoded_record(encoded, x, storage.codec, x.dtype)
    form = x.new_empty(()).expand(norm.recorded_shape(x))  # its shape alone matters
    record = encoded_record(encoded, form, storage.codec, x.dtype)
    return record.then(partial(torch.reshape, shape=x.shape))


def _encode(codec: Codec, x: Tensor, mean: Tensor, rstd: Tensor, norm: _Norm) -> tuple[Tensor, ...]:
    lying = in_memory(x)
    shape = norm.recorded_shape(x) if lying is x else lying.shape
    if torch.compiler.is_compiling() or shape[0] != len(x):
        return encode(codec, in_memory(_standardise(x, mean, rstd)).reshape(shape))
    statistics = (mean, rstd)

    def make(samples: slice) -> Tensor:
        some = (value[samples] if value.ndim == x.ndim else value for value in statistics)
        return in_memory(_standardise(x[samples], *some)).reshape(-1, *shape[1:])

    return encode_made(codec, shape, x.device, make)


def _standardise(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) - mean).mul_(rstd).to(x.dtype)


def _affine(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, dtype: torch.dtype, overwrite: bool
) -> Tensor:
    out = x.to(dtype) if overwrite else x.to(dtype, copy=True)
    if weight is not None:
        out.mul_(weight)
    return out if bias is None else out.add_(bias)


@dataclass
class _BatchNorm(_Norm):
    running: tuple[Tensor | None, Tensor | None]
    momentum: float
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        # what F.batch_norm itself calls; it hands out the batch's mean and 1/std besides
        cudnn = torch.backends.cudnn.enabled
        out, mean, rstd, *_ = torch._batch_norm_impl_index(
            x, weight, bias, *self.running, True, self.momentum, self.eps, cudnn
        )
        return out, mean.view(self.affine_shape(x)), rstd.view(self.affine_shape(x))

    def backward(
        self,
        grad: Tensor,
        normalised: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> tuple[Tensor | None, ...]:
        rstd = rstd.flatten()
        scale = rstd if weight is None else weight * rstd
        zeros, ones = torch.zeros_like(rstd), torch.ones_like(rstd)
        gradients: tuple[Tensor | None, ...] = aten.native_batch_norm_backward(
            grad, normalised, scale, None, None, zeros, ones, True, self.eps, needs
        )
        return gradients


def batch_norm(
    storage: Storage,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.batch_norm` of ``input`` ``(batch, channels, ...)``.

    With batch statistics (``training``) the input or the normalised input is stored, and the
    gradients of ``input`` and ``weight`` are approximate. With running statistics the gradient of
    ``input`` is exact, and nothing is stored unless ``weight`` needs a gradient. That of ``bias``
    is always exact.

    Returns:
        The shape of ``input``, bit for bit that of torch.
    """
    if training:
        norm = _BatchNorm((running_mean, running_var), momentum, eps)
        return _normalise(storage, input, weight, bias, norm)
    needed = weight is not None and weight.requires_grad
    record = store(input, storage) if needed else find(input, storage) or NOTHING
    stored = record if needed else NOTHING
    out: Tensor = _FrozenBatchNorm.apply(
        input, weight, bias, running_mean, running_var, eps, stored.read, *stored.tensors
    )
    if record.read:
        function = partial(F.batch_norm, eps=eps)
        more = (running_mean, running_var, weight, bias)
        leave(out, record.then(function, *more, fresh=True), storage)
    return out


class _FrozenBatchNorm(Function):
    """Batch norm by its running statistics: affine, so its input's gradient needs no value."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
        read: Read | None,
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, running_mean, running_var, *stored)
        ctx.eps, ctx.read, ctx.shape = eps, read, x.shape
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, var, *stored = ctx.saved_tensors
        x = ctx.read(*stored) if ctx.read else grad.new_empty(()).expand(ctx.shape)
        gradients = aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, list(ctx.needs_input_grad[:3])
        )
        return *gradients, None, None, None, None, *(None,) * len(stored)


@dataclass
class _LayerNorm(_Norm):
    shape: list[int]
    eps: float

    def recorded_shape(self, x: Tensor) -> torch.Size:
        channels = math.prod(self.shape)
        batch = len(x) if x.ndim > len(self.shape) else 1
        return torch.Size((batch, math.prod(x.shape) // max(batch * channels, 1), channels))

    def affine_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(self.shape)

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(x, self.shape, weight, bias, self.eps)

    def backward(
        self,
        grad: Tensor,
        normalised: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> tuple[Tensor | None, ...]:
        zeros, ones = torch.zeros_like(rstd), torch.ones_like(rstd)
        d_x, d_weight, d_bias = aten.native_layer_norm_backward(
            grad, normalised, self.shape, zeros, ones, weight, bias, needs
        )
        return (d_x.mul_(rstd) if needs[0] else None), d_weight, d_bias


def layer_norm(
    storage: Storage,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.layer_norm` of ``input`` ``(..., *normalized_shape)``.

    1/std is kept exactly; the gradients of ``input`` and ``weight`` are approximate where the codec
    is, that of ``bias`` is exact. The output is bit for bit that of torch.
    """
    return _normalise(storage, input, weight, bias, _LayerNorm(list(normalized_shape), eps))


@dataclass
class _GroupNorm(_Norm):
    groups: int
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, *statistics = aten.native_group_norm(x, weight, bias, *self._geometry(x), self.eps)
        per_group = x.shape[1] // self.groups
        mean, rstd = (
            value.repeat_interleave(per_group, 1).view(x.shape[0], *self.affine_shape(x))
            for value in statistics
        )
        return out, mean, rstd

    def backward(
        self,
        grad: Tensor,
        normalised: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> tuple[Tensor | None, ...]:
        zeros = rstd.new_zeros(grad.shape[0], self.groups)
        d_x, d_weight, d_bias = aten.native_group_norm_backward(
            grad.contiguous(),
            normalised,
            zeros,
            zeros + 1,
            weight,
            *self._geometry(grad),
            needs,
        )
        return (d_x.mul_(rstd) if needs[0] else None), d_weight, d_bias

    def _geometry(self, x: Tensor) -> tuple[int, int, int, int]:
        batch, channels, *spatial = x.shape
        return batch, channels, math.prod(spatial), self.groups


def group_norm(
    storage: Storage,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.group_norm` of ``input`` ``(batch, channels, ...)``.

    Stored, and approximate, as in :func:`layer_norm`.
    """
    if input.is_cuda and torch.is_autocast_enabled("cuda"):
        input = input.float()  # autocast does so for F.group_norm, not for the native operation
    return _normalise(storage, input, weight, bias, _GroupNorm(num_groups, eps))
