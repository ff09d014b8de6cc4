"""Normalisations whose input is stored by a codec, beside their exact statistics."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from razorlight.codecs import Codec
from razorlight.records import NOTHING, store

aten = torch.ops.aten


class _BatchNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: tuple[Tensor | None, Tensor | None],
        momentum: float,
        eps: float,
        read: Callable[..., Tensor],
        *stored: Tensor,
    ) -> Tensor:
        # what F.batch_norm itself calls; it hands out the batch's mean and 1/std besides
        out, mean, invstd, *_ = torch._batch_norm_impl_index(
            x, weight, bias, *running, True, momentum, eps, torch.backends.cudnn.enabled
        )
        ctx.save_for_backward(weight, mean, invstd, *stored)
        ctx.eps, ctx.read = eps, read
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, invstd, *stored = ctx.saved_tensors
        gradients = aten.native_batch_norm_backward(
            grad,
            ctx.read(*stored),
            weight,
            None,
            None,
            mean,
            invstd,
            True,
            ctx.eps,
            list(ctx.needs_input_grad[:3]),
        )
        return *gradients, None, None, None, None, *(None,) * len(stored)


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
        read: Callable[..., Tensor] | None,
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


def batch_norm(
    codec: Codec,
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

    With batch statistics (``training``) ``codec`` stores ``input``, and the gradients of ``input``
    and ``weight`` are approximate. With running statistics the gradient of ``input`` is exact, and
    nothing is stored unless ``weight`` needs a gradient. That of ``bias`` is always exact.

    Returns:
        The shape of ``input``, bit for bit that of torch.
    """
    if not training:
        record = store(input, codec) if weight is not None and weight.requires_grad else NOTHING
        return _FrozenBatchNorm.apply(
            input, weight, bias, running_mean, running_var, eps, record.read, *record.tensors
        )
    record = store(input, codec)
    running = (running_mean, running_var)
    return _BatchNorm.apply(
        input, weight, bias, running, momentum, eps, record.read, *record.tensors
    )


class _LayerNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        shape: Sequence[int],
        eps: float,
        read: Callable[..., Tensor],
        *stored: Tensor,
    ) -> Tensor:
        out, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(weight, bias, mean, rstd, *stored)
        ctx.shape, ctx.read = shape, read
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, mean, rstd, *stored = ctx.saved_tensors
        x = ctx.read(*stored).to(grad.dtype)
        gradients = aten.native_layer_norm_backward(
            grad, x, ctx.shape, mean, rstd, weight, bias, list(ctx.needs_input_grad[:3])
        )
        return *gradients, None, None, None, *(None,) * len(stored)


def layer_norm(
    codec: Codec,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.layer_norm` of ``input`` ``(..., *normalized_shape)``.

    Mean and 1/std are kept exactly, ``input`` by ``codec``: the gradients of ``input`` and
    ``weight`` are approximate, that of ``bias`` is exact. The output is bit for bit that of torch.
    """
    record = store(input, codec)
    shape = list(normalized_shape)
    return _LayerNorm.apply(input, weight, bias, shape, eps, record.read, *record.tensors)


class _GroupNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        groups: int,
        eps: float,
        read: Callable[..., Tensor],
        *stored: Tensor,
    ) -> Tensor:
        batch, channels, *spatial = x.shape
        ctx.geometry = (batch, channels, math.prod(spatial), groups)
        out, mean, rstd = aten.native_group_norm(x, weight, bias, *ctx.geometry, eps)
        ctx.save_for_backward(weight, mean, rstd, *stored)
        ctx.read = read
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, rstd, *stored = ctx.saved_tensors
        x = ctx.read(*stored).to(grad.dtype)
        gradients = aten.native_group_norm_backward(
            grad.contiguous(), x, mean, rstd, weight, *ctx.geometry, list(ctx.needs_input_grad[:3])
        )
        return *gradients, None, None, None, *(None,) * len(stored)


def group_norm(
    codec: Codec,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.group_norm` of ``input`` ``(batch, channels, ...)``.

    Mean and 1/std of each group are kept exactly, ``input`` by ``codec``; gradients as in
    :func:`layer_norm`.
    """
    if input.is_cuda and torch.is_autocast_enabled("cuda"):
        input = input.float()  # autocast does so for F.group_norm, not for the native operation
    record = store(input, codec)
    return _GroupNorm.apply(input, weight, bias, num_groups, eps, record.read, *record.tensors)
