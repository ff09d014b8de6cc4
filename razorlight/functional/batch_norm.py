"""The norms that can have running statistics: batch norm and instance norm."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight._torch import batch_norm_with_statistics, check_batch_size, check_spatial_size
from razorlight.codecs.kernels import Codes, NormKernels
from razorlight.functional.normalise import NORMS, BackwardInputs, Norm, Reading, normalise
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import NOTHING, Record, attach_record, find, store

aten = torch.ops.aten


@dataclass(eq=False)
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
        # their variance is 1, as 0.5 plus an eps of 0.5, because torch 2.11 refuses an eps of 0
        half = torch.full_like(mean, 0.5)
        return F.batch_norm(x, mean, half, scale, shift, eps=0.5)

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
        self, kernels: NormKernels, codes: Codes, given: BackwardInputs
    ) -> Gradients | None:
        grad, weight, _, mean, rstd, needs = given
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


@dataclass(eq=False)
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


@dataclass(eq=False)
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


def _as_one_sample(x: Tensor) -> Tensor:
    return x.contiguous().view(1, -1, *x.shape[2:])


def _repeated(of_channels: Tensor | None, batch: int) -> Tensor | None:
    return None if of_channels is None else of_channels.repeat(batch)


NORMS["batch"] = lambda shape: _BatchNorm((None, None), 0.0, 0.0)
