"""Norms by the statistics of their input: one record of it, normalised."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from razorlight.codecs import Codec, Dense, encode, encode_made, scale_and_shift
from razorlight.functional.backward import once_differentiable
from razorlight.records import NOTHING, Read, Record, encoded_record, in_memory, read_last
from razorlight.sharing import Storage, find, leave, one_of_several, store

_FEW = 4
"""Values whose norm has hardly a gradient, so that a codec's error would make all of it."""
_AS_IT_IS = Storage(Dense())

_FARTHEST = 8.0  # standard deviations: what lies beyond is on one side of the centre anyway


class Norm(ABC):
    """A kind of norm by batch statistics: ``weight * (x - mean) * rstd + bias``.

    Where a rectifier may follow, what is stored goes the way of the output and is zero with it, so
    that a codec that keeps signs keeps the gate: ``(x - mean) * rstd - centre``, with ``rstd``
    negative where ``weight`` is.
    """

    channels: ClassVar[int] = 1
    rectified: ClassVar[bool] = True

    def affine_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape in which weight and bias broadcast to ``x``: of channels first."""
        return (-1, *(1,) * (x.ndim - 2))

    def turned(
        self, weight: Tensor | None, bias: Tensor | None, rstd: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """1/std with its sign, and the centre."""
        if not self.rectified or weight is None:
            return rstd, rstd.new_zeros(())
        weight = weight.to(rstd.dtype)
        rstd = rstd * torch.where(weight < 0, -1, 1).view(self.affine_shape(x))
        if bias is None:
            return rstd, rstd.new_zeros(())
        zero = torch.where(weight == 0, 0, -bias / weight.abs()).clamp(-_FARTHEST, _FARTHEST)
        return rstd, zero.to(rstd.dtype).view(self.affine_shape(x))

    def population(self, x: Tensor) -> int:
        """Over how many values a mean is taken."""
        return x.numel() // max(1, x.shape[1])

    @abstractmethod
    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The output, and mean and 1/std in shapes that broadcast to ``x``."""

    def again(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """The output once more, of the input as read back."""
        return self.forward(x, weight, bias)[0]

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        reading: "Reading",
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> tuple[Tensor | None, ...]:
        """The gradients of input, weight and bias, where needed, from what was stored."""


class Reading(NamedTuple):
    """What backward reads: the normalised input is ``(value - mean) * step``.

    Attributes:
        value: the input, or what was stored in its place.
        mean: broadcasts to it.
        step: of the input 1/std, else 1 or -1.
        rest: what is missing to 1/std, ``step * rest``; None if nothing is.
    """

    value: Tensor
    mean: Tensor
    step: Tensor
    rest: Tensor | None


class _Normalise(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        norm: Norm,
        codec: Codec,
        form: Record,
        read: Read | None,
        *stored: Tensor,
    ) -> tuple[Tensor, ...]:
        out, mean, rstd = norm.forward(x, weight, bias)
        encoded: tuple[Tensor, ...] = ()
        if not read:
            rstd, centre = norm.turned(weight, bias, rstd, x)
            encoded = _encode(codec, x, mean + centre / rstd, rstd, norm)
            mean = -centre
        ctx.save_for_backward(weight, bias, mean, rstd, *stored, *encoded)
        ctx.norm, ctx.read, ctx.stored = norm, read or form.read, len(stored)
        ctx.of_input = read is not None
        ctx.mark_non_differentiable(mean, rstd, *encoded)
        return out, mean, rstd, *encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, mean, rstd, *stored = ctx.saved_tensors
        value = read_last(ctx.read, stored)[0].to(grad.dtype)  # what followed has read it before
        if ctx.of_input:
            reading = Reading(value, mean, rstd, None)
        else:
            reading = Reading(value, mean, rstd.sign(), rstd)
        gradients = ctx.norm.backward(grad, reading, weight, bias, list(ctx.needs_input_grad[:3]))
        return *gradients, None, None, None, None, *(None,) * ctx.stored


def normalise(
    storage: Storage, x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: Norm
) -> Tensor:
    """``x`` normalised, scaled and shifted, and a record of it that lies on the output.

    Args:
        storage: how the normalised input is stored, or the input if it is stored as it is, or
            nothing is shared.
        x: ``(batch, channels, ...)`` or ``(..., channels)``, as ``norm`` says.
        weight: the scale, or None.
        bias: the shift, or None.
        norm: the kind.

    Returns:
        The shape of ``x``, bit for bit that of torch.
    """
    codec = storage.codec.of_values()
    # as published, the input is what is stored; where records are shared, the normalised input is:
    # its entries are of one size, whatever the scale of the input
    of_input = not storage.shares or codec.is_identity(x.dtype)
    if norm.population(x) <= _FEW:
        known: Record | None = store(x, _AS_IT_IS, channels=norm.channels)
    elif of_input:
        known = store(x, storage, channels=norm.channels)
    else:
        known = find(x, storage)
    source = known or NOTHING
    form = encoded_record((), x, codec, x.dtype, norm.channels)
    if storage.shares:  # the product behind reads it just before
        form = form.for_neighbours()
    out, mean, rstd, *encoded = _Normalise.apply(
        x, weight, bias, norm, codec, form, source.read, *source.tensors
    )
    out = one_of_several(out)
    by_sample = len(norm.affine_shape(x)) < x.ndim
    if source.read:
        again = partial(_again, norm=norm, dtype=out.dtype)
        record = source.then(again, mean, rstd, weight, bias, fresh=True, by_sample=by_sample)
    else:
        record = form._replace(tensors=tuple(encoded))
        affine = (None if p is None else p.view(norm.affine_shape(x)) for p in (weight, bias))
        function = partial(_affine, dtype=out.dtype, turned=norm.rectified)
        record = record.then(function, mean, *affine, fresh=True, by_sample=by_sample)
    leave(out, record, storage)
    return out


def _again(
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    norm: Norm,
    dtype: torch.dtype,
) -> Tensor:
    return norm.again(x, mean, rstd, weight, bias).to(dtype)


def _encode(codec: Codec, x: Tensor, mean: Tensor, rstd: Tensor, norm: Norm) -> tuple[Tensor, ...]:
    shape = in_memory(x, norm.channels).shape
    if torch.compiler.is_compiling() or shape[0] != len(x):
        return encode(codec, in_memory(_standardise(x, mean, rstd), norm.channels, like=x))
    statistics = (mean, rstd)

    def make(samples: slice) -> Tensor:
        some = (value[samples] if value.ndim == x.ndim else value for value in statistics)
        return in_memory(_standardise(x[samples], *some), norm.channels, like=x)

    return encode_made(codec, shape, x.device, make)


def _standardise(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) - mean).mul_(rstd).to(x.dtype)


def _affine(
    centred: Tensor,
    mean: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
    turned: bool,
) -> Tensor:
    if weight is None:
        out = centred.to(dtype, copy=True)
        return out if bias is None else out.add_(bias)
    weight = weight.abs() if turned else weight
    # where the centre is that of the output, nothing is left to add, and signs stay
    shift = -mean * weight if bias is None else bias - mean * weight
    return scale_and_shift(centred, weight, shift).to(dtype)
