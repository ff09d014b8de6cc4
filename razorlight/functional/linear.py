"""Linear and matrix product whose operands are stored by a codec."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from razorlight.codecs import Codec
from razorlight.functional.autocast import matmul_dtype
from razorlight.records import NOTHING, join, store


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        read: Callable[..., Tensor],
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, *stored)
        ctx.dtype, ctx.read, ctx.stored = dtype, read, len(stored)
        return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *stored = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # tokens flattened first: a batched product would hold a weight gradient for each sample
        flat = grad.reshape(-1, grad.shape[-1])
        d_weight = flat.mT @ ctx.read(*stored).flatten(0, -2) if needs_weight else None
        d_x = grad @ weight.to(ctx.dtype) if needs_x else None
        d_bias = flat.sum(0) if needs_bias else None
        return d_x, d_weight, d_bias, None, None, *(None,) * ctx.stored


def linear(codec: Codec, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.linear`; ``codec`` stores ``input`` for the weight's gradient.

    The gradients of ``input`` and ``bias`` are exact.

    Args:
        codec: how ``input`` is stored, if ``weight`` needs a gradient; else nothing is.
        input: ``(..., in)``.
        weight: ``(out, in)``.
        bias: ``(out,)``.

    Returns:
        ``(..., out)``, bit for bit that of torch.
    """
    dtype = matmul_dtype(input)
    if input.ndim == 1:
        return linear(codec, input[None], weight, bias)[0]
    record = store(input, codec, dtype) if weight.requires_grad else NOTHING
    return _Linear.apply(input, weight, bias, dtype, record.read, *record.tensors)


class _Matmul(Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, read: Callable[..., Sequence[Tensor]], *stored: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.read, ctx.shapes = read, (a.shape, b.shape)
        return a @ b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stored = ctx.saved_tensors
        a, b = ctx.read(*stored)
        d_a = (grad @ b.mT).sum_to_size(ctx.shapes[0]) if ctx.needs_input_grad[0] else None
        d_b = (a.mT @ grad).sum_to_size(ctx.shapes[1]) if ctx.needs_input_grad[1] else None
        return d_a, d_b, None, *(None,) * len(stored)


def matmul(codec: Codec, input: Tensor, other: Tensor) -> Tensor:
    """:func:`torch.matmul` of ``(..., n, m)`` and ``(..., m, p)``; both are stored by ``codec``.

    Both gradients are approximate where the codec is: each reads the other operand. Vectors are
    left to torch.
    """
    if min(input.ndim, other.ndim) < 2:
        return torch.matmul(input, other)
    dtype = matmul_dtype(input)
    a, b = input.to(dtype), other.to(dtype)
    record = join(
        store(a, codec) if b.requires_grad else NOTHING,
        store(b, codec) if a.requires_grad else NOTHING,
    )
    return _Matmul.apply(a, b, record.read, *record.tensors)
