"""Dropout. One bit an entry is stored: whether the entry passed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.functional.operation import (
    Gradients,
    Needs,
    Operation,
    Result,
    Saved,
    run,
    run_in_place,
)
from razorlight.functional.rectifier import mask_of
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import (
    Record,
    as_it_is,
    attach_record,
    carry_record,
    find,
    join,
    product_of,
)


def dropout(
    plan: LayerPlan, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.dropout`, with torch's own draw; one bit an entry is stored."""
    if p == 0 or not training:
        out = F.dropout(input, p, training, inplace)
        carry_record(input, out)
        return out
    # torch draws the same noise for any values of this shape. For ones the output is the noise.
    noise = F.dropout(torch.ones_like(input, requires_grad=False), p)
    mask = mask_of(torch.Tensor.bool, noise)
    known = find(input, plan)
    scale = 1 / (1 - p) if p < 1 else 0.0
    out = _drop(input, noise, scale, inplace, mask)
    if known:
        both = join(known, mask)
        attach_record(out, both.then(partial(_dropped, scale=scale), returns_new=True), plan)
    return out


def _drop(x: Tensor, noise: Tensor, scale: float, inplace: bool, mask: Record) -> Tensor:
    operation = _Dropout(scale)
    return (run_in_place if inplace else run)(operation, mask, x, noise)


@dataclass(eq=False)
class _Dropout(Operation):
    scale: float

    def forward(self, needs: Needs, x: Tensor, noise: Tensor) -> Result:
        return Result(x * noise)

    def forward_in_place(self, x: Tensor, noise: Tensor) -> None:
        x.mul_(noise)

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        return record.read().mul_(self.scale).mul_(grad), None


def _dropped(value_and_mask: Sequence[Tensor], scale: float) -> Tensor:
    value, mask = value_and_mask
    return mask.mul_(scale).mul_(value)


def feature_dropout(
    plan: LayerPlan,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    function: Callable[..., Tensor],
) -> Tensor:
    """:func:`torch.nn.functional.dropout2d` (1d, 3d), with torch's own draw.

    One number a channel is stored: the noise.

    Args:
        plan: the plan of the layer; it says whether records are shared.
        input: ``(batch, channels, ...)`` or ``(channels, ...)``.
        p: probability that a channel is dropped.
        training: Whether anything is dropped.
        inplace: Whether ``input`` is overwritten.
        function: the torch function: ``dropout1d``, ``dropout2d`` or ``dropout3d``.
    """
    if p == 0 or not training:
        out = function(input, p, training, inplace)
        carry_record(input, out)
        return out
    known = find(input, plan)
    # All entries of a channel have the same noise, so the first entry is enough.
    everywhere = function(torch.ones_like(input, requires_grad=False), p)
    for dim in range(2, input.ndim):
        everywhere = everywhere.narrow(dim, 0, 1)
    noise = everywhere.clone()
    out = input.mul_(noise) if inplace else input * noise
    if known:
        both = join(known, as_it_is(noise))
        attach_record(out, both.then(product_of, returns_new=True, within_samples=True), plan)
    return out


_ALPHA = 1.7580993408473766  # torch's own


def alpha_dropout(
    plan: LayerPlan, input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.alpha_dropout`, with torch's own draw; one bit an entry."""
    if not (training and 0 < p < 1):
        return F.alpha_dropout(input, p, training, inplace)
    # For zeros the output is the shift that torch adds. It is positive exactly where entries pass.
    shift = F.alpha_dropout(torch.zeros_like(input, requires_grad=False), p, True)
    mask = mask_of(_is_passed, shift)
    scale = 1 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p))
    noise = _is_passed(shift).to(shift.dtype).mul_(scale)
    out = _drop(input, noise, scale, inplace, mask).add_(shift)
    if known := find(input, plan):
        function = partial(_alpha_dropped, p=p, scale=scale)
        attach_record(out, join(known, mask).then(function, returns_new=True), plan)
    return out


def _is_passed(shift: Tensor) -> Tensor:
    return shift > 0


def _alpha_dropped(value_and_mask: Sequence[Tensor], p: float, scale: float) -> Tensor:
    value, mask = value_and_mask
    shift = (mask - (1 - p)) * (_ALPHA * scale)
    return mask.mul_(scale).mul_(value).add_(shift)
