"""Dropout: which entries passed is stored, in one bit an entry."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.functional.backward import once_differentiable
from razorlight.functional.rectifier import mask_of
from razorlight.records import Read, Record, as_it_is, join, product_of
from razorlight.sharing import Storage, find, hand_on, leave


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
    mask = mask_of(torch.Tensor.bool, noise)
    known = find(input, storage)
    scale = 1 / (1 - p) if p < 1 else 0.0
    out = _drop(input, noise, scale, inplace, mask)
    if known:
        both = join(known, mask)
        leave(out, both.then(partial(_dropped, scale=scale), fresh=True), storage)
    return out


def _drop(x: Tensor, noise: Tensor, scale: float, inplace: bool, mask: Record) -> Tensor:
    if inplace and torch.compiler.is_compiling():  # as in activate
        out = _Dropout.apply(x, noise, scale, False, mask.read, *mask.tensors)
        return x.copy_(out)
    return _Dropout.apply(x, noise, scale, inplace, mask.read, *mask.tensors)


def _dropped(value_and_kept: Sequence[Tensor], scale: float) -> Tensor:
    value, kept = value_and_kept
    return kept.mul_(scale).mul_(value)


def feature_dropout(
    storage: Storage,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    function: Callable[..., Tensor],
) -> Tensor:
    """:func:`torch.nn.functional.dropout2d` (1d, 3d), with torch's own draw; a number a channel.

    Args:
        storage: whether a record of the input goes on.
        input: ``(batch, channels, ...)`` or ``(channels, ...)``.
        p: probability that a channel is dropped.
        training: as in torch, like ``inplace``.
        inplace: change ``input``.
        function: which of the three.
    """
    if p == 0 or not training:
        out = function(input, p, training, inplace)
        hand_on(input, out)
        return out
    known = find(input, storage)
    # a channel has the same noise everywhere: the first entry is enough
    everywhere = function(torch.ones_like(input, requires_grad=False), p)
    for dim in range(2, input.ndim):
        everywhere = everywhere.narrow(dim, 0, 1)
    noise = everywhere.clone()
    out = input.mul_(noise) if inplace else input * noise
    if known:
        both = join(known, as_it_is(noise))
        leave(out, both.then(product_of, fresh=True, by_sample=True), storage)
    return out


_ALPHA = 1.7580993408473766  # torch's own


def alpha_dropout(
    storage: Storage, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.alpha_dropout`, with torch's own draw; one bit an entry."""
    if not (training and 0 < p < 1):
        return F.alpha_dropout(input, p, training, inplace)
    # of zeros torch gives what it adds: above zero where an entry passes, else below
    shift = F.alpha_dropout(torch.zeros_like(input, requires_grad=False), p, True)
    mask = mask_of(_passes, shift)
    scale = 1 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p))
    noise = _passes(shift).to(shift.dtype).mul_(scale)
    out = _drop(input, noise, scale, inplace, mask).add_(shift)
    if known := find(input, storage):
        function = partial(_alpha_dropped, p=p, scale=scale)
        leave(out, join(known, mask).then(function, fresh=True), storage)
    return out


def _passes(shift: Tensor) -> Tensor:
    return shift > 0


def _alpha_dropped(value_and_kept: Sequence[Tensor], p: float, scale: float) -> Tensor:
    value, kept = value_and_kept
    shift = (kept - (1 - p)) * (_ALPHA * scale)
    return kept.mul_(scale).mul_(value).add_(shift)
