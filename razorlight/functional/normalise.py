"""Norms by the statistics of their input: one record of it, normalised."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from razorlight.codecs import Codec, encode, encode_made
from razorlight.functional.backward import once_differentiable
from razorlight.records import NOTHING, Read, Record, encoded_record, in_memory, read_last
from razorlight.sharing import Storage, find, leave, one_of_several, store

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

    @abstractmethod
    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The output, and mean and 1/std in shapes that broadcast to ``x``."""

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        centred: Tensor,
        centre: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> tuple[Tensor | None, ...]:
        """The gradients of input, weight and bias, where needed, from what was stored."""


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
        rstd, centre = norm.turned(weight, bias, rstd, x)
        mean = mean + centre / rstd
        encoded = () if read else _encode(codec, x, mean, rstd, norm)
        record = _centred(Record(stored, read), mean, rstd, form, encoded)
        ctx.save_for_backward(weight, bias, rstd, centre, *record.tensors)
        ctx.norm, ctx.read, ctx.stored = norm, record.read, len(stored)
        ctx.mark_non_differentiable(mean, rstd, centre, *encoded)
        return out, mean, rstd, centre, *encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, rstd, centre, *stored = ctx.saved_tensors
        centred = read_last(ctx.read, stored)[0]  # what followed has read it before
        needs = list(ctx.needs_input_grad[:3])
        gradients = ctx.norm.backward(
            grad, centred.to(grad.dtype), centre, rstd, weight, bias, needs
        )
        return *gradients, None, None, None, None, *(None,) * ctx.stored


def normalise(
    storage: Storage, x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: Norm
) -> Tensor:
    """``x`` normalised, scaled and shifted, and a record of it that lies on the output.

    Args:
        storage: how the normalised input is stored, or the input if nothing is shared.
        x: ``(batch, channels, ...)`` or ``(..., channels)``, as ``norm`` says.
        weight: the scale, or None.
        bias: the shift, or None.
        norm: the kind.

    Returns:
        The shape of ``x``, bit for bit that of torch.
    """
    # as published, the input is what is stored; where records are shared, the normalised input is:
    # its entries are of one size, whatever the scale of the input
    share = find(x, storage) if storage.shares else store(x, storage, channels=norm.channels)
    source = share or NOTHING
    codec = storage.codec
    form = encoded_record((), x, codec, x.dtype, norm.channels)
    if storage.shares and norm.rectified:  # the product behind reads it just before
        form = form.for_neighbours()
    out, mean, rstd, centre, *encoded = _Normalise.apply(
        x, weight, bias, norm, codec, form, source.read, *source.tensors
    )
    out = one_of_several(out)
    record = _centred(source, mean, rstd, form, encoded)
    affine = (None if p is None else p.view(norm.affine_shape(x)) for p in (weight, bias))
    function = partial(_affine, dtype=out.dtype, overwrite=record.fresh, turned=norm.rectified)
    leave(out, record.then(function, centre, *affine, fresh=True), storage)
    return out


def _centred(
    source: Record, mean: Tensor, rstd: Tensor, form: Record, encoded: Sequence[Tensor]
) -> Record:
    """The record of the normalised input off its centre: encoded, or derived from the input's."""
    if source.read:
        return source.then(_standardise, mean, rstd, fresh=True)
    return form._replace(tensors=tuple(encoded))


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
    centre: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
    overwrite: bool,
    turned: bool,
) -> Tensor:
    out, shift = centred.to(dtype), bias
    if weight is None:
        out = out if overwrite else out.clone()
    else:
        weight = weight.abs() if turned else weight
        out = out.mul_(weight) if overwrite else (out * weight).to(dtype)
        # where the centre is that of the output, nothing is left to add, and signs stay
        shift = centre * weight if bias is None else centre * weight + bias
    return out if shift is None else out.add_(shift)
