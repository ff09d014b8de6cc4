"""Rectifiers: a gate where the slope has two values, stored in bits or read from the output."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.codecs import Mask, Uniform
from razorlight.functional.activation import activate, channels_of, times_slope
from razorlight.functional.autocast import cast, matmul_dtype
from razorlight.functional.backward import once_differentiable
from razorlight.records import NOTHING, Read, Record, join, record_of
from razorlight.sharing import Storage, find, leave, store

aten = torch.ops.aten


def _gate(
    storage: Storage,
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    inplace: bool,
    passes: Callable[[Tensor], Tensor],
    by_mask: Callable[[Tensor, Tensor], Tensor] = times_slope,
    keeps: Literal["signs", "zeros"] | None = None,
) -> Tensor:
    """A piecewise linear activation, with one slope where the input ``passes`` and one elsewhere.

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
        by_mask: the input's gradient, from the output's and the mask (0 and 1); by default the
            slopes themselves are 0 and 1.
        keeps: what a record must keep for its output to show the gate; zeros are what the codec of
            a gate keeps. None if it takes more.
    """
    known = find(x, storage)
    # of a layer that may call a curved activation too, it may be a codec that shows no gate
    by_value = keeps is not None and isinstance(storage.codec, Uniform)
    if known is None and by_value and keeps == "zeros":
        known = record_of(x.detach(), storage.codec.keeping("zeros"), x.dtype, channels_of(x))
    # what is run again from a stored value may be on the other side of the gate
    by_value = by_value and known is not None and not known.products
    output = known and known.then(
        partial(function, inplace=known.fresh), fresh=True, by_sample=True
    )
    if by_value and output:
        read = output = output.for_neighbours()
    else:
        read, gradient = mask_of(passes, x), by_mask
    out = activate(x, function, gradient, inplace, read)
    leave(out, output, storage)
    return out


def _is_positive(x: Tensor) -> Tensor:
    return x > 0


def mask_of(passes: Callable[[Tensor], Tensor], x: Tensor) -> Record:
    """The record of where ``x`` ``passes``, read back as 0 and 1 of its dtype."""
    return record_of(x.detach(), Mask(), x.dtype, channels_of(x), of=passes)


def _passes(x: Tensor, gradient: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Where torch's own ``gradient`` passes: several times faster than comparisons on a CPU."""
    return gradient(x.new_ones(()).expand_as(x), x).bool()


def _gate_gradient(grad: Tensor, passes: Tensor, slope: float) -> Tensor:
    return torch.where(passes != 0, grad, grad * slope)


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
        _is_positive,
        partial(_gate_gradient, slope=negative_slope),
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
        times_slope,
        inplace,
        partial(
            _passes, gradient=partial(aten.hardtanh_backward, min_val=min_val, max_val=max_val)
        ),
    )


def hardsigmoid(storage: Storage, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.hardsigmoid`; one bit an entry is stored, exactly."""
    passes = partial(_passes, gradient=aten.hardsigmoid_backward)
    return _gate(storage, input, F.hardsigmoid, times_slope, inplace, passes, _sixth_where)


def _sixth_where(grad: Tensor, passes: Tensor) -> Tensor:
    return times_slope(grad, passes).mul_(1 / 6)


class _PReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, read: Read, *stored: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *stored)
        ctx.read = read
        return F.prelu(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *stored = ctx.saved_tensors
        positive, value = ctx.read(*stored)
        positive = positive != 0
        slope = weight if grad.ndim < 2 else weight.view(-1, *(1,) * (grad.ndim - 2))
        d_x = torch.where(positive, grad, grad * slope) if ctx.needs_input_grad[0] else None
        d_weight = None
        if value is not None:
            product = (grad * value).masked_fill_(positive, 0.0)
            d_weight = product.sum_to_size(slope.shape if grad.ndim else ()).view_as(weight)
        return d_x, d_weight, None, *(None,) * len(stored)


def prelu(storage: Storage, input: Tensor, weight: Tensor) -> Tensor:
    """:func:`torch.nn.functional.prelu`; one bit an entry is stored, and the input.

    The gradient of ``input`` is exact. A frozen ``weight`` needs no input.

    Args:
        storage: how ``input`` is stored for the gradient of ``weight``.
        input: ``(batch, channels, ...)``, or of any shape for a single weight.
        weight: ``(channels,)`` or ``(1,)``.
    """
    # as autocast does, but inside the Function too late, and in backward not at all
    if torch.is_autocast_enabled(input.device.type):
        dtype = matmul_dtype(input)
        input, weight = cast(input, dtype), cast(weight, dtype)
    if weight.requires_grad:
        value = store(input, storage, channels=channels_of(input))
    else:
        value = find(input, storage) or NOTHING
    needed = value if weight.requires_grad else NOTHING
    both = join(mask_of(_is_positive, input), needed)
    out: Tensor = _PReLU.apply(input, weight, both.read, *both.tensors)
    if value.read:
        leave(out, value.then(F.prelu, weight, fresh=True, by_sample=input.ndim > 1), storage)
    return out
