"""Activations: one bit an entry where the slope has two values, the stored input elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from razorlight.codecs import Codec
from razorlight.records import Record, reader, store

aten = torch.ops.aten


class _Activation(Function):
    """An elementwise function, and its gradient from the output's gradient and a stored value."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        function: Callable[..., Tensor],
        gradient: Callable[[Tensor, Tensor], Tensor],
        inplace: bool,
        read: Callable[..., Tensor],
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.gradient, ctx.read = gradient, read
        if inplace:
            ctx.mark_dirty(x)
            function(x, inplace=True)
            return x
        return function(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stored = ctx.saved_tensors
        d_x = ctx.gradient(grad, ctx.read(*stored))
        return d_x, None, None, None, None, *(None,) * len(stored)


def _activate(
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[[Tensor, Tensor], Tensor],
    inplace: bool,
    record: Record,
) -> Tensor:
    if inplace and torch.compiler.is_compiling():
        # the compiled graph of a Function that overwrites its input may have a wrong gradient
        # (torch 2.14); copied back, it is right, and the compiler makes it in place again
        return x.copy_(_activate(x, function, gradient, False, record))
    return _Activation.apply(x, function, gradient, inplace, record.read, *record.tensors)


def _gate(
    codec: Codec,
    x: Tensor,
    passes: Tensor,
    slope: float,
    function: Callable[..., Tensor],
    inplace: bool,
) -> Tensor:
    """A piecewise linear activation: slope 1 where ``passes``, else ``slope``."""
    record = Record(codec.encode(passes), reader(passes, codec, torch.bool))
    return _activate(x, function, partial(_gate_gradient, slope=slope), inplace, record)


def _gate_gradient(grad: Tensor, passes: Tensor, slope: float) -> Tensor:
    return torch.where(passes, grad, grad * slope if slope else 0)


def relu(codec: Codec, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.relu` of any shape; one bit an entry is stored, exactly."""
    # "not below" and not "above": NaN goes through, as in torch
    return _gate(codec, input, ~(input.detach() <= 0), 0.0, F.relu, inplace)


def leaky_relu(
    codec: Codec, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.leaky_relu`; one bit an entry is stored, exactly."""
    function = partial(F.leaky_relu, negative_slope=negative_slope)
    return _gate(codec, input, input.detach() > 0, negative_slope, function, inplace)


def hardtanh(
    codec: Codec, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.hardtanh`, and so ReLU6; one bit an entry is stored, exactly."""
    value = input.detach()
    function = partial(F.hardtanh, min_val=min_val, max_val=max_val)
    passes = ~((value <= min_val) | (value >= max_val))
    return _gate(codec, input, passes, 0.0, function, inplace)


def _smooth(
    codec: Codec,
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[[Tensor, Tensor], Tensor],
    inplace: bool = False,
) -> Tensor:
    return _activate(x, function, gradient, inplace, store(x, codec, overwritten=inplace))


def gelu(codec: Codec, input: Tensor, approximate: str = "none") -> Tensor:
    """:func:`torch.nn.functional.gelu`, both forms; the input is stored by ``codec``.

    The codec must not prune: the slope at 0 is one half, so a zero put in would pass a gradient.
    """
    return _smooth(
        codec,
        input,
        partial(F.gelu, approximate=approximate),
        partial(aten.gelu_backward, approximate=approximate),
    )


def silu(codec: Codec, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.silu`; the input is stored by ``codec``, as in :func:`gelu`."""
    return _smooth(codec, input, F.silu, aten.silu_backward, inplace)


def hardswish(codec: Codec, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.hardswish`; the input is stored as in :func:`gelu`."""
    return _smooth(codec, input, F.hardswish, aten.hardswish_backward, inplace)


class _Dropout(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        noise: Tensor,
        scale: float,
        inplace: bool,
        read: Callable[..., Tensor],
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.scale, ctx.read = scale, read
        if inplace:
            ctx.mark_dirty(x)
            x.mul_(noise)
            return x
        return x * noise

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stored = ctx.saved_tensors
        grad = torch.where(ctx.read(*stored), grad * ctx.scale, 0)
        return grad, None, None, None, None, *(None,) * len(stored)


def dropout(
    codec: Codec, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.dropout`, with torch's own draw; one bit an entry is stored."""
    if p == 0 or not training:
        return F.dropout(input, p, training, inplace)
    # torch draws the noise of its shape, whatever the values: ones give the noise itself
    noise = F.dropout(torch.ones_like(input, requires_grad=False), p)
    kept = noise != 0
    record = Record(codec.encode(kept), reader(kept, codec, torch.bool))
    scale = 1 / (1 - p) if p < 1 else 0.0
    if inplace and torch.compiler.is_compiling():  # as in _activate
        out = _Dropout.apply(input, noise, scale, False, record.read, *record.tensors)
        return input.copy_(out)
    return _Dropout.apply(input, noise, scale, inplace, record.read, *record.tensors)
