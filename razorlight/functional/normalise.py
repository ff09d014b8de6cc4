"""What all norms with statistics of their input share: they store the normalised input."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from razorlight._torch import is_traced
from razorlight.codecs import (
    Codec,
    Dense,
    Elementwise,
    Name,
    codec_of,
    encode,
    encode_in_chunks,
    has_kernels,
    spec_of,
)
from razorlight.codecs.kernels import Codes, NormKernels, kernels_for, norm_kernels_for
from razorlight.functional.autocast import cast
from razorlight.functional.operation import (
    Gradients,
    Needs,
    Operation,
    Result,
    Saved,
    run_with_by_products,
)
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import (
    NOTHING,
    Decode,
    Reader,
    Record,
    as_stored_layout,
    attach_record,
    encoded_record,
    find,
    samples_of,
    store,
)

_FEW = 4
"""A norm of so few values has hardly a gradient: the error of a codec would be larger."""
_AS_IT_IS = LayerPlan(Dense())
_FARTHEST_CENTRE = 8.0
"""Standard deviations. All values lie on one side of a centre that is farther away."""


class Reading(NamedTuple):
    """The tensors that the backward of a norm reads.

    The normalised input is ``(value - mean) * scale``.

    Attributes:
        value: the input, or the normalised input minus its centre.
        mean: the mean of the input, or minus the centre; it broadcasts to the value.
        rstd: 1/std of the input, with the sign with which the normalised input was stored.
        is_normalised: Whether the value is the normalised input.
    """

    value: Tensor
    mean: Tensor
    rstd: Tensor
    is_normalised: bool

    @property
    def scale(self) -> Tensor:
        """1/std of the value. If the value is the normalised input, this is 1 or -1."""
        return self.rstd.sign() if self.is_normalised else self.rstd

    @property
    def missing_scale(self) -> Tensor | None:
        """The factor that a gradient lacks if it is computed with :attr:`scale`; None if none."""
        return self.rstd if self.is_normalised else None


class BackwardInputs(NamedTuple):
    """What the backward of a norm takes, beside the normalised input.

    Attributes:
        grad: the gradient of the output.
        weight: the scale, or None.
        bias: the shift, or None.
        mean: as in :class:`Reading`.
        rstd: as in :class:`Reading`.
        needs: whether the gradients of input, weight and bias are needed.
    """

    grad: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    rstd: Tensor
    needs: Needs


class Norm(ABC):
    """A kind of norm by the statistics of its input: ``weight * (x - mean) * rstd + bias``.

    A rectifier may follow. The stored value therefore has the sign of the output, and is zero where
    the output is zero, so that a codec that preserves signs preserves the gate. The stored value is
    ``(x - mean) * rstd - centre``, where ``rstd`` is negative if ``weight`` is.
    """

    channels: ClassVar[int] = 1
    may_be_rectified: ClassVar[bool] = True
    name: ClassVar[str] = ""
    """The name in :data:`NORMS` of a norm whose gradients kernels compute from codes."""

    @abstractmethod
    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the output, and the mean and 1/std in shapes that broadcast to ``x``."""

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        reading: Reading,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> Gradients:
        """Compute the gradients of input, weight and bias, each one if it is needed."""

    def backward_of_codes(
        self, kernels: NormKernels, codes: Codes, given: BackwardInputs
    ) -> Gradients | None:
        """As :meth:`backward`, from the codes of the normalised input.

        The result is None if the value has to be decoded first, which is so by default.
        """
        return None

    def recompute(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """Compute the output again, from the input that was stored."""
        return self.forward(x, weight, bias)[0]

    def affine_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape in which weight and bias broadcast to ``x``; by default channels are dim 1."""
        return (-1, *(1,) * (x.ndim - 2))

    def population(self, x: Tensor) -> int:
        """The number of values over which one mean is taken."""
        return x.numel() // max(1, x.shape[1])

    def sign_aligned(
        self, weight: Tensor | None, bias: Tensor | None, rstd: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """1/std with the sign of the weight, and minus the centre; None if the centre is zero."""
        if not self.may_be_rectified or weight is None:
            return rstd, None
        shape = self.affine_shape(x)
        rstd = torch.copysign(rstd, weight.view(shape))
        if bias is None:
            return rstd, None
        # a weight of zero has no place where the output is zero
        minus_centre = (bias / weight.abs()).nan_to_num_(0.0, 0.0, 0.0)
        minus_centre.clamp_(-_FARTHEST_CENTRE, _FARTHEST_CENTRE)
        return rstd, minus_centre.to(rstd.dtype).view(shape)


NORMS: dict[str, Callable[[tuple[int, ...]], Norm]] = {}
"""By name: makes the norm for the backward alone, from the shape over which it normalises."""


def normalise(
    plan: LayerPlan, x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: Norm
) -> Tensor:
    """Normalise, scale and shift ``x``, and attach a record to the output.

    The normalised input is stored, because its entries have one size whatever the scale of the
    input. The input itself is stored if the codec is the identity, if ``plan`` does not share (as
    published), or if a mean is taken over very few values.

    Args:
        plan: the plan by which the value is stored.
        x: ``(batch, channels, ...)`` or ``(..., channels)``, as ``norm`` says.
        weight: the scale, or None.
        bias: the shift, or None.
        norm: the kind of norm.

    Returns:
        The shape of ``x``, bit for bit that of torch.
    """
    codec = plan.codec.of_values()
    if norm.population(x) <= _FEW:
        known: Record | None = store(x, _AS_IT_IS, channels=norm.channels)
    elif not plan.shares or codec.is_identity(x.dtype):
        known = store(x, plan, channels=norm.channels)
    else:
        known = find(x, plan)
    normalised = encoded_record((), x, codec, x.dtype, norm.channels)
    if plan.shares:  # in backward, the product that follows reads the value just before the norm
        normalised = normalised.cached()
    operation = _Normalise(norm, None if known else codec, normalised.known_reader)
    out, statistics = run_with_by_products(operation, known or NOTHING, x, weight, bias)
    mean, rstd, *encoded = statistics
    within_samples = len(norm.affine_shape(x)) < x.ndim
    if known:
        again = partial(_recompute, norm=norm, dtype=out.dtype)
        more = (mean, rstd, weight, bias)
        record = known.then(again, *more, returns_new=True, within_samples=within_samples)
    else:
        affine = (None if p is None else p.view(norm.affine_shape(x)) for p in (weight, bias))
        name: Name = "affine_of_signs" if norm.may_be_rectified else "affine"
        function = Elementwise(name, dtype=out.dtype)
        record = Record(tuple(encoded), normalised.reader).then(
            function, mean, *affine, returns_new=True, within_samples=within_samples
        )
    attach_record(out, record, plan)
    return out


@dataclass(eq=False)
class _Normalise(Operation):
    """A norm. If there is a codec, forward also encodes the normalised input."""

    norm: Norm
    codec: Codec | None
    normalised: Reader

    def forward(
        self, needs: Needs, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Result:
        out, mean, rstd = self.norm.forward(x, weight, bias)
        encoded: tuple[Tensor, ...] = ()
        if self.codec is not None:
            rstd, minus_centre = self.norm.sign_aligned(weight, bias, rstd, x)
            if minus_centre is not None:
                mean = torch.addcdiv(mean, minus_centre, rstd, value=-1)
            encoded = _encode(self.codec, x, mean, rstd, self.norm.channels)
            mean = rstd.new_zeros(()) if minus_centre is None else minus_centre
        return Result(out, (weight, bias), (mean, rstd, *encoded))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        weight, bias, mean, rstd, *encoded = saved
        assert mean is not None
        assert rstd is not None
        if self.codec is None:
            reading = Reading(cast(record.take()[0], grad.dtype), mean, rstd, False)
            return self.norm.backward(grad, reading, weight, bias, [*needs])
        record = Record(tuple(encoded), self.normalised)  # type: ignore[arg-type]
        given = BackwardInputs(grad, weight, bias, mean, rstd, needs)
        if is_traced() and self.norm.name and has_kernels(self.codec, grad.device):
            return _as_operator(self.norm, record, given)
        return _from_codes(self.norm, record, given)


def _from_codes(norm: Norm, record: Record, given: BackwardInputs) -> Gradients:
    """The gradients, from the record of the normalised input."""
    if (codes := uncached_codes(record)) and (kernels := norm_kernels_for(codes)):
        gradients = norm.backward_of_codes(kernels, codes, given)
        if gradients is not None:
            return gradients
    grad, weight, bias, mean, rstd, needs = given
    value = cast(record.take()[0], grad.dtype)  # the layers that follow have read it already
    return norm.backward(grad, Reading(value, mean, rstd, True), weight, bias, [*needs])


def _as_operator(norm: Norm, record: Record, given: BackwardInputs) -> Gradients:
    """:func:`_from_codes` as an operator, which a compiler does not look into."""
    decode = record.known_reader.uncached_decode()
    assert decode is not None
    grad, *others, needs = given
    found = iter(
        _norm_gradients(
            grad, record.tensors, *others, [*needs], norm.name,
            len(norm.affine_shape(grad)), spec_of(decode.codec), decode.stored_shape,
            decode.dtype, decode.channels_last,
        )
    )  # fmt: skip
    return [next(found) if is_needed else None for is_needed in needs]


def _norm_gradients_spec(
    grad: Tensor,
    encoded: Sequence[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    needs: Sequence[bool],
    name: str,
    rank: int,
    spec: str,
    stored_shape: Sequence[int],
    dtype: torch.dtype,
    channels_last: bool,
) -> list[Tensor]:
    reader = Decode(codec_of(spec), torch.Size(stored_shape), grad.shape, dtype, channels_last)
    record, norm = Record(tuple(encoded), reader), NORMS[name](grad.shape[-rank:])
    given = BackwardInputs(grad, weight, bias, mean, rstd, needs)
    gradients = _from_codes(norm, record, given)
    return [gradient for gradient in gradients if gradient is not None]


_norm_gradients = torch.library.custom_op(
    "razorlight::norm_gradients", _norm_gradients_spec, mutates_args=()
)
_norm_gradients.register_fake(_norm_gradients_spec)


def uncached_codes(record: Record) -> Codes | None:
    """The codes of the value of a record, unless the value is cached or a compiler traces."""
    reader = None if is_traced() else record.known_reader.uncached_decode()
    if reader is None:
        return None
    return Codes(reader.codec, record.tensors, reader.stored_shape, reader.channels_last)


def _encode(
    codec: Codec, x: Tensor, mean: Tensor, rstd: Tensor, channels: int
) -> tuple[Tensor, ...]:
    if is_traced() and has_kernels(codec, x.device):
        return tuple(_encode_normalised(x, mean, rstd, channels, spec_of(codec)))
    return _encode_now(codec, x, mean, rstd, channels)


def _encode_now(
    codec: Codec, x: Tensor, mean: Tensor, rstd: Tensor, channels: int
) -> tuple[Tensor, ...]:
    view = as_stored_layout(x, channels)
    if not is_traced() and (kernels := kernels_for(codec, view.shape, view)):
        statistics = [as_stored_layout(s.expand_as(x), channels, like=x) for s in (mean, rstd)]
        if kernels.serves_norm(codec, view, *statistics):
            return kernels.encode(codec, view, *statistics)
    if is_traced() or len(view) != len(x):
        return encode(codec, as_stored_layout(_standardise(x, mean, rstd), channels, like=x))

    def make(samples: slice) -> Tensor:
        some = (
            samples_of(value, samples) if value.ndim == x.ndim else value for value in (mean, rstd)
        )
        return as_stored_layout(_standardise(samples_of(x, samples), *some), channels, like=x)

    return encode_in_chunks(codec, view.shape, x.device, make)


def _encode_spec(x: Tensor, mean: Tensor, rstd: Tensor, channels: int, spec: str) -> list[Tensor]:
    return list(_encode_now(codec_of(spec), x, mean, rstd, channels))


_encode_normalised = torch.library.custom_op(
    "razorlight::encode_normalised", _encode_spec, mutates_args=()
)
_encode_normalised.register_fake(_encode_spec)


def _standardise(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return cast((cast(x, wide) - mean).mul_(rstd), x.dtype)


def _recompute(
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    norm: Norm,
    dtype: torch.dtype,
) -> Tensor:
    return cast(norm.recompute(x, mean, rstd, weight, bias), dtype)
