"""Activations: a gate where the slope has two values, the stored input elsewhere."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.codecs import Mask, Slope, Uniform
from razorlight.codecs.slope import Curve
from razorlight.functional.backward import once_differentiable
from razorlight.records import Read, Record, join, read_last, record_of
from razorlight.sharing import Storage, find, hand_on, leave, origin_of, store

aten = torch.ops.aten

# made beforehand: of a codec that is made while it traces a compiler sees no fields
_SLOPES = {(bits, curve): Slope(bits, curve) for bits in (2, 3, 4) for curve in get_args(Curve)}


class _Activation(Function):
    """An elementwise function, and its gradient from the output's gradient and a stored value."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        function: Callable[..., Tensor],
        gradient: Callable[..., Tensor],
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
        value, owned = read_last(ctx.read, stored)  # what followed has read it before
        d_x = ctx.gradient(grad, value, **({"grad_input": value} if owned else {}))
        return d_x, None, None, None, None, *(None,) * len(stored)


def _activate(
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
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
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    inplace: bool,
    passes: Callable[[Tensor], Tensor],
    slope: float = 0.0,
    keeps: Literal["signs", "zeros"] | None = None,
) -> Tensor:
    """A piecewise linear activation: slope 1 where the input ``passes``, else ``slope``.

    A mask stores that in one bit. With codec :class:`~razorlight.codecs.Uniform` it is read from
    the record of the output that the product behind needs anyway, if there is one or the codec can
    make one.

    Args:
        storage: how.
        x: the input.
        function: the activation.
        gradient: the input's, from the output's and the output.
        inplace: change ``x``.
        passes: the gate.
        slope: where it is closed.
        keeps: what a record must keep for its output to show the gate; zeros are what the codec of
            a gate keeps. None if it takes more.
    """
    known = find(x, storage)
    # of a layer that may call a curved activation too, it may be a codec that shows no gate
    by_value = keeps is not None and isinstance(storage.codec, Uniform)
    if known is None and by_value and keeps == "zeros":
        known = record_of(x.detach(), storage.codec.keeping("zeros"), x.dtype, _channels(x))
    # what is run again from a stored value may be on the other side of the gate
    by_value = by_value and known is not None and not known.products
    output = known and known.then(
        partial(function, inplace=known.fresh), fresh=True, by_sample=True
    )
    if by_value and output:
        read = output = output.for_neighbours()
    else:
        read = _mask(passes, x)
        gradient = partial(_gate_gradient, slope=slope) if slope else _times_slope
    out = _activate(x, function, gradient, inplace, read)
    leave(out, output, storage)
    return out


def _mask(passes: Callable[[Tensor], Tensor], x: Tensor) -> Record:
    """The record of where ``x`` ``passes``, read back as 0 and 1 of its dtype."""
    return record_of(x.detach(), Mask(), x.dtype, _channels(x), of=passes)


def _passes(x: Tensor, gradient: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Where torch's own ``gradient`` passes: several times faster than comparisons on a CPU."""
    return gradient(x.new_ones(()).expand_as(x), x).bool()


def _channels(x: Tensor) -> int:
    """The dim of the channels: the last one of tokens, and behind a Linear."""
    return -1 if x.ndim == 3 or origin_of(x) is not None else 1


def _hardswish_gradient(grad: Tensor, x: Tensor, grad_input: Tensor | None = None) -> Tensor:
    if grad_input is None:
        return aten.hardswish_backward(grad, x)
    return aten.hardswish_backward(grad, x, out=grad_input)


def _gate_gradient(grad: Tensor, passes: Tensor, slope: float) -> Tensor:
    return torch.where(passes != 0, grad, grad * slope)


def _times_slope(grad: Tensor, slopes: Tensor) -> Tensor:
    return slopes.mul_(grad)


def relu(storage: Storage, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.relu` of any shape; its gate is stored, or its output."""
    gradient = partial(aten.threshold_backward, threshold=0)
    return _gate(
        storage,
        input,
        F.relu,
        gradient,
        inplace,
        partial(_passes, gradient=gradient),
        keeps="zeros",
    )


def leaky_relu(
    storage: Storage, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.leaky_relu`; stored as in :func:`relu`."""
    invertible = negative_slope > 0  # else the output does not show the gate
    return _gate(
        storage,
        input,
        partial(F.leaky_relu, negative_slope=negative_slope),
        partial(aten.leaky_relu_backward, negative_slope=negative_slope, self_is_result=invertible),
        inplace,
        lambda x: x > 0,
        negative_slope,
        keeps="signs" if invertible else None,
    )


def hardtanh(
    storage: Storage,
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.hardtanh`, and so ReLU6; one bit an entry is stored, exactly.

    No codec keeps on which side of both edges an entry lies.
    """
    return _gate(
        storage,
        input,
        partial(F.hardtanh, min_val=min_val, max_val=max_val),
        _times_slope,
        inplace,
        partial(
            _passes, gradient=partial(aten.hardtanh_backward, min_val=min_val, max_val=max_val)
        ),
    )


def _smooth(
    storage: Storage,
    x: Tensor,
    name: Curve,
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    inplace: bool = False,
) -> Tensor:
    if isinstance(storage.codec, Slope) and find(x, storage) is None:
        codec = _SLOPES[storage.codec.bits, name]
        slopes = record_of(x.detach(), codec, x.dtype)
        return _activate(x, function, _times_slope, inplace, slopes)
    record = store(x, storage, overwritten=inplace, channels=_channels(x))
    if storage.shares:  # the product that follows reads it just before
        record = record.for_neighbours()
    out = _activate(x, function, gradient, inplace, record)
    leave(out, record.then(function, fresh=True, by_sample=True), storage)
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
    return _smooth(storage, input, "hardswish", F.hardswish, _hardswish_gradient, inplace)


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
    mask = _mask(torch.Tensor.bool, noise)
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
