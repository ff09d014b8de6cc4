"""Activations: one bit an entry where the slope has two values, the stored input elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from razorlight.codecs import Slope
from razorlight.records import (
    Read,
    Record,
    Storage,
    find,
    hand_on,
    join,
    leave,
    record_of,
    store,
)

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
        read: Read,
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
    """Apply ``function``, whose ``gradient`` reads ``record``."""
    if inplace and torch.compiler.is_compiling():
        # the compiled graph of a Function that overwrites its input may have a wrong gradient
        # (torch 2.14); copied back, it is right, and the compiler makes it in place again
        out = _Activation.apply(x, function, gradient, False, record.read, *record.tensors)
        return x.copy_(out)
    return _Activation.apply(x, function, gradient, inplace, record.read, *record.tensors)


def _gate(
    storage: Storage,
    x: Tensor,
    passes: Tensor,
    slope: float,
    function: Callable[..., Tensor],
    inplace: bool,
) -> Tensor:
    """A piecewise linear activation: slope 1 where ``passes``, else ``slope``."""
    known = find(x, storage)
    gradient = partial(_gate_gradient, slope=slope) if slope else _times_slope
    out = _activate(x, function, gradient, inplace, _mask(passes, storage, x.dtype))
    if known:
        leave(out, known.then(partial(function, inplace=known.fresh), fresh=True), storage)
    return out


def _mask(passes: Tensor, storage: Storage, dtype: torch.dtype) -> Record:
    """The record of a mask, read back as 0 and 1 of ``dtype``."""
    return record_of(passes, storage.codec, dtype)


def _gate_gradient(grad: Tensor, passes: Tensor, slope: float) -> Tensor:
    return torch.where(passes != 0, grad, grad * slope)


def _times_slope(grad: Tensor, slopes: Tensor) -> Tensor:
    return slopes.mul_(grad)


def relu(storage: Storage, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.relu` of any shape; one bit an entry is stored, exactly."""
    # "not below" and not "above": NaN goes through, as in torch
    return _gate(storage, input, ~(input.detach() <= 0), 0.0, F.relu, inplace)


def leaky_relu(
    storage: Storage, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.leaky_relu`; one bit an entry is stored, exactly."""
    function = partial(F.leaky_relu, negative_slope=negative_slope)
    return _gate(storage, input, input.detach() > 0, negative_slope, function, inplace)


def hardtanh(
    storage: Storage,
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.hardtanh`, and so ReLU6; one bit an entry is stored, exactly."""
    value = input.detach()
    function = partial(F.hardtanh, min_val=min_val, max_val=max_val)
    passes = ~((value <= min_val) | (value >= max_val))
    return _gate(storage, input, passes, 0.0, function, inplace)


def _smooth(
    storage: Storage,
    x: Tensor,
    name: Literal["gelu", "gelu_tanh", "silu", "hardswish"],
    function: Callable[..., Tensor],
    gradient: Callable[[Tensor, Tensor], Tensor],
    inplace: bool = False,
) -> Tensor:
    if isinstance(storage.codec, Slope) and find(x, storage) is None:
        codec = replace(storage.codec, function=name)
        slopes = record_of(x.detach(), codec, x.dtype)
        return _activate(x, function, _times_slope, inplace, slopes)
    record = store(x, storage, overwritten=inplace)
    if storage.shares:  # the product that follows reads it just before
        record = record.for_neighbours()
    out = _activate(x, function, gradient, inplace, record)
    leave(out, record.then(function, fresh=True), storage)
    return out


def gelu(storage: Storage, input: Tensor, approximate: str = "none") -> Tensor:
    """:func:`torch.nn.functional.gelu`, both forms; the input is stored.

    The codec must not prune: the slope at 0 is one half, so a zero put in would pass a gradient.
    The codec :class:`~razorlight.codecs.Slope` stores the slope in place of an input that has no
    record; what follows then stores for itself.
    """
    return _smooth(
        storage,
        input,
        "gelu" if approximate == "none" else "gelu_tanh",
        partial(F.gelu, approximate=approximate),
        partial(aten.gelu_backward, approximate=approximate),
    )


def silu(storage: Storage, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.silu`; the input is stored as in :func:`gelu`."""
    return _smooth(storage, input, "silu", F.silu, aten.silu_backward, inplace)


def hardswish(storage: Storage, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.hardswish`; the input is stored as in :func:`gelu`."""
    return _smooth(storage, input, "hardswish", F.hardswish, aten.hardswish_backward, inplace)


class _Dropout(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        noise: Tensor,
        scale: float,
        inplace: bool,
        read: Read,
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
        grad = ctx.read(*stored).mul_(ctx.scale).mul_(grad)
        return grad, None, None, None, None, *(None,) * len(stored)


def dropout(
    storage: Storage, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.dropout`, with torch's own draw; one bit an entry is stored."""
    if p == 0 or not training:
        out = F.dropout(input, p, training, inplace)
        hand_on(input, out)
        return out
    # torch draws the noise of its shape, whatever the values: ones give the noise itself
    noise = F.dropout(torch.ones_like(input, requires_grad=False), p)
    mask = _mask(noise != 0, storage, input.dtype)
    known = find(input, storage)
    scale = 1 / (1 - p) if p < 1 else 0.0
    if inplace and torch.compiler.is_compiling():  # as in _activate
        out = _Dropout.apply(input, noise, scale, False, mask.read, *mask.tensors)
        out = input.copy_(out)
    else:
        out = _Dropout.apply(input, noise, scale, inplace, mask.read, *mask.tensors)
    if known:
        both = join(known, mask)
        leave(out, both.then(partial(_dropped, scale=scale), fresh=True), storage)
    return out


def _dropped(value_and_kept: Sequence[Tensor], scale: float) -> Tensor:
    value, kept = value_and_kept
    return kept.mul_(scale).mul_(value)
