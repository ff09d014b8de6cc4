"""The norms: batch norm, instance norm, layer norm, group norm and RMS norm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight._torch import (
    batch_norm_with_statistics,
    check_batch_size,
    check_spatial_size,
)
from razorlight.codecs.kernels import Codes, NormKernels
from razorlight.functional.normalise import NORMS, Norm, Reading, normalise
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import NOTHING, Record, attach_record, find, store

aten = torch.ops.aten


@dataclass(frozen=True)
class _BatchNorm(Norm):
    running: tuple[Tensor | None, Tensor | None]
    momentum: float
    eps: float

    name: ClassVar[str] = "batch"

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, rstd = batch_norm_with_statistics(
            x, weight, bias, self.running, self.momentum, self.eps
        )
        return out, mean.view(self.affine_shape(x)), rstd.view(self.affine_shape(x))

    def recompute(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        # The statistics are given, so that the running ones do not count this batch twice.
        wide = torch.promote_types(x.dtype, torch.float32)
        mean, scale = mean.flatten().to(wide), rstd.flatten().to(wide)
        scale = scale if weight is None else scale * weight
        shift = torch.zeros_like(mean) if bias is None else bias.to(wide)
        return F.batch_norm(x, mean, torch.ones_like(mean), scale, shift, eps=0.0)

    def backward(
        self,
        grad: Tensor,
        reading: Reading,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> Gradients:
        scale, missing = reading.scale.flatten(), reading.missing_scale
        if missing is not None:
            weight = missing.flatten() if weight is None else missing.flatten() * weight
        mean = reading.mean.flatten().expand_as(scale).contiguous()
        return aten.native_batch_norm_backward(
            grad, reading.value, weight, None, None, mean, scale, True, self.eps, needs
        )

    def backward_of_codes(
        self,
        kernels: NormKernels,
        codes: Codes,
        grad: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        rstd: Tensor,
        needs: Needs,
    ) -> Gradients | None:
        centre = mean if mean.ndim else None  # a single mean is zero
        return kernels.channel_gradients(codes, grad, weight, centre, rstd, needs)


def batch_norm(
    plan: LayerPlan,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.batch_norm` of ``input`` ``(batch, channels, ...)``.

    With batch statistics (``training``) the input or the normalised input is stored, and the
    gradients of ``input`` and ``weight`` are approximate. With running statistics the gradient of
    ``input`` is exact, and nothing is stored unless ``weight`` needs a gradient. The gradient of
    ``bias`` is always exact.

    Returns:
        The shape of ``input``, bit for bit that of torch.
    """
    if training:
        check_batch_size(input.shape)
        norm = _BatchNorm((running_mean, running_var), momentum, eps)
        return normalise(plan, input, weight, bias, norm)
    is_needed = weight is not None and weight.requires_grad
    known = store(input, plan, channels=1) if is_needed else find(input, plan) or NOTHING
    # With a frozen weight backward needs no value. It still has the reader, to release the value
    # that the layers that follow have cached.
    record = known if is_needed else Record((), known.reader)
    operation = _FrozenBatchNorm(eps, input.shape)
    out = run(operation, record, input, weight, bias, running_mean, running_var)
    if known.reader:
        function = partial(F.batch_norm, eps=eps)
        more = (running_mean, running_var, weight, bias)
        attach_record(out, known.then(function, *more, returns_new=True), plan)
    return out


@dataclass(frozen=True)
class _FrozenBatchNorm(Operation):
    """Batch norm with running statistics. It is affine, so the input's gradient needs no value."""

    eps: float
    shape: torch.Size

    def forward(
        self,
        needs: Needs,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
    ) -> Result:
        out = F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        return Result(out, (weight, mean, var))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        weight, mean, var = saved
        x = record.read() if record.tensors else grad.new_empty(()).expand(self.shape)
        record.release()  # the layers that follow have read the value already
        d_x, d_weight, d_bias = aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, self.eps, [*needs[:3]]
        )
        return d_x, d_weight, d_bias, None, None


@dataclass(frozen=True)
class _LayerNorm(Norm):
    shape: tuple[int, ...]
    eps: float

    channels: ClassVar[int] = -1
    may_be_rectified: ClassVar[bool] = False
    is_centred: ClassVar[bool] = True
    name: ClassVar[str] = "layer"

    def population(self, x: Tensor) -> int:
        return math.prod(self.shape)

    def affine_shape(self, x: Tensor) -> tuple[int, ...]:
        return self.shape

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(x, self.shape, weight, bias, self.eps)

    def backward(
        self,
        grad: Tensor,
        reading: Reading,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> Gradients:
        mean = reading.mean
        if mean.shape != reading.rstd.shape:
            mean = mean.expand_as(reading.rstd).contiguous()
        d_x, d_weight, d_bias = aten.native_layer_norm_backward(
            grad, reading.value, [*self.shape], mean, reading.scale, weight, bias, needs
        )
        return _scaled(d_x, reading.missing_scale), d_weight, d_bias

    def backward_of_codes(
        self,
        kernels: NormKernels,
        codes: Codes,
        grad: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        rstd: Tensor,
        needs: Needs,
    ) -> Gradients | None:
        gradients = kernels.row_gradients(codes, grad, weight, rstd, needs, self.is_centred)
        if gradients is None:
            return None
        d_x, *others = gradients
        return d_x, *(None if d is None else d.view(self.shape) for d in others)


def layer_norm(
    plan: LayerPlan,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.layer_norm` of ``input`` ``(..., *normalized_shape)``.

    1/std is stored exactly. The gradients of ``input`` and ``weight`` are approximate if the codec
    is, and the gradient of ``bias`` is exact. The output is bit for bit that of torch.
    """
    return normalise(plan, input, weight, bias, _LayerNorm(tuple(normalized_shape), eps))


@dataclass(frozen=True)
class _RMSNorm(_LayerNorm):
    """``weight * x * rstd``, where 1/rstd is the root mean square: the deviation from zero."""

    is_centred: ClassVar[bool] = False
    name: ClassVar[str] = "rms"

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        square = wide.square().mean(self._dims, keepdim=True)
        out = F.rms_norm(x, self.shape, weight, self.eps)
        return out, square.new_zeros(()), torch.rsqrt(square + self.eps)

    def backward(
        self,
        grad: Tensor,
        reading: Reading,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> Gradients:
        normalised = reading.value
        if not reading.is_normalised:
            normalised = normalised * reading.rstd
        product = grad * normalised
        d_weight = product.sum_to_size(self.shape) if needs[1] else None
        if not needs[0]:
            return None, d_weight, None
        if weight is not None:
            # not in place: if there is a single token, the product is the gradient of the weight
            grad, product = grad * weight, product * weight
        d_x = (grad - normalised * product.mean(self._dims, keepdim=True)) * reading.rstd
        return d_x, d_weight, None

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))


def rms_norm(
    plan: LayerPlan,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """:func:`torch.nn.functional.rms_norm` of ``input`` ``(..., *normalized_shape)``.

    The input is stored, and the gradients are approximate, as in :func:`layer_norm`.
    """
    if eps is None:
        eps = torch.finfo(torch.promote_types(input.dtype, torch.float32)).eps
    return normalise(plan, input, weight, None, _RMSNorm(tuple(normalized_shape), eps))


@dataclass(frozen=True)
class _GroupNorm(Norm):
    groups: int
    eps: float

    def population(self, x: Tensor) -> int:
        return x[0].numel() // self.groups if len(x) else 0

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, *statistics = aten.native_group_norm(x, weight, bias, *self._geometry(x), self.eps)
        per_group = x.shape[1] // self.groups
        mean, rstd = (
            value.repeat_interleave(per_group, 1).view(x.shape[0], *self.affine_shape(x))
            for value in statistics
        )
        return out, mean, rstd

    def backward(
        self,
        grad: Tensor,
        reading: Reading,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> Gradients:
        value, mean, scale = reading.value, reading.mean, reading.scale
        missing = None
        if reading.is_normalised:  # with one centre for each channel, not for each group
            value = ((value - mean) * scale).to(grad.dtype)
            missing = reading.rstd * scale
            mean = scale.new_zeros(grad.shape[0], self.groups)
            scale = mean + 1
        else:
            mean, scale = self._of_groups(mean), self._of_groups(scale)
        d_x, d_weight, d_bias = aten.native_group_norm_backward(
            grad.contiguous(), value, mean, scale, weight, *self._geometry(grad), needs
        )
        return _scaled(d_x, missing), d_weight, d_bias

    def _of_groups(self, of_channels: Tensor) -> Tensor:
        batch, channels = of_channels.shape[:2]
        return of_channels.view(batch, self.groups, channels // self.groups)[..., 0].contiguous()

    def _geometry(self, x: Tensor) -> tuple[int, int, int, int]:
        batch, channels, *spatial = x.shape
        return batch, channels, math.prod(spatial), self.groups


def group_norm(
    plan: LayerPlan,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.group_norm` of ``input`` ``(batch, channels, ...)``.

    The input is stored, and the gradients are approximate, as in :func:`layer_norm`.
    """
    batch = math.prod(input.shape[:2]) // num_groups
    check_batch_size([batch, num_groups, *input.shape[2:]])
    if input.is_cuda and torch.is_autocast_enabled("cuda"):
        input = input.float()  # autocast casts for F.group_norm, but not for the native operation
    return normalise(plan, input, weight, bias, _GroupNorm(num_groups, eps))


@dataclass(frozen=True)
class _InstanceNorm(_BatchNorm):
    """A batch norm that takes each channel of each sample as one channel, as torch does."""

    def population(self, x: Tensor) -> int:
        return math.prod(x.shape[2:])

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, wide = len(x), _as_one_sample(x)
        running = [_repeated(value, batch) for value in self.running]
        norm = _BatchNorm((running[0], running[1]), self.momentum, self.eps)
        out, *statistics = norm.forward(wide, _repeated(weight, batch), _repeated(bias, batch))
        for value, updated in zip(self.running, running, strict=True):
            if value is not None and updated is not None:
                value.copy_(updated.view(batch, -1).mean(0))
        mean, rstd = (value.view(batch, *self._of_channels(x)) for value in statistics)
        return out.view(x.shape), mean, rstd

    def recompute(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        # ``x`` may have only some of the samples, so the statistics are computed again
        return _InstanceNorm((None, None), self.momentum, self.eps).forward(x, weight, bias)[0]

    def backward(
        self,
        grad: Tensor,
        reading: Reading,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> Gradients:
        batch = len(grad)
        reading = Reading(
            _as_one_sample(reading.value),
            reading.mean.expand_as(reading.rstd),
            reading.rstd,
            reading.is_normalised,
        )
        d_x, *others = super().backward(
            _as_one_sample(grad), reading, _repeated(weight, batch), _repeated(bias, batch), needs
        )
        d_x = None if d_x is None else d_x.view(grad.shape)
        return d_x, *(None if d is None else d.view(batch, -1).sum(0) for d in others)

    name: ClassVar[str] = ""
    backward_of_codes = Norm.backward_of_codes

    def _of_channels(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[1], *(1,) * (x.ndim - 2))


def _scaled(d_x: Tensor | None, scale: Tensor | None) -> Tensor | None:
    return d_x if d_x is None or scale is None else d_x.mul_(scale)


def _as_one_sample(x: Tensor) -> Tensor:
    return x.contiguous().view(1, -1, *x.shape[2:])


def _repeated(of_channels: Tensor | None, batch: int) -> Tensor | None:
    return None if of_channels is None else of_channels.repeat(batch)


def instance_norm(
    plan: LayerPlan,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.instance_norm` of ``input`` ``(batch, channels, ...)``.

    The input is stored, and the gradients are approximate, as in :func:`batch_norm`.
    """
    if not use_input_stats:
        statistics = (running_mean, running_var)
        return batch_norm(plan, input.contiguous(), *statistics, weight, bias, False, eps=eps)
    check_spatial_size(input.shape)
    norm = _InstanceNorm((running_mean, running_var), momentum, eps)
    return normalise(plan, input, weight, bias, norm)


NORMS |= {
    "batch": lambda shape: _BatchNorm((None, None), 0.0, 0.0),
    "layer": lambda shape: _LayerNorm(shape, 0.0),
    "rms": lambda shape: _RMSNorm(shape, 0.0),
}
