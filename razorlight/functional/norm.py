"""Normalisations: one record of the normalised input, for their backward and what follows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.functional.backward import once_differentiable
from razorlight.functional.normalise import Norm, Reading, normalise
from razorlight.records import NOTHING, Read, release
from razorlight.sharing import Storage, find, leave, no_view, store

aten = torch.ops.aten


@dataclass
class _BatchNorm(Norm):
    running: tuple[Tensor | None, Tensor | None]
    momentum: float
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        # what F.batch_norm itself calls; it hands out the batch's mean and 1/std besides
        cudnn = torch.backends.cudnn.enabled
        out, mean, rstd, *_ = torch._batch_norm_impl_index(
            x, weight, bias, *self.running, True, self.momentum, self.eps, cudnn
        )
        return out, mean.view(self.affine_shape(x)), rstd.view(self.affine_shape(x))

    def again(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        # by the statistics at hand; the running ones have seen this batch before
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
    ) -> tuple[Tensor | None, ...]:
        value, mean, step, rest = reading
        scale = weight
        if rest is not None:
            scale = rest.flatten() if weight is None else rest.flatten() * weight
        step = step.flatten()
        mean = mean.flatten().expand_as(step).contiguous()
        gradients: tuple[Tensor | None, ...] = aten.native_batch_norm_backward(
            grad, value, scale, None, None, mean, step, True, self.eps, needs
        )
        return gradients


def batch_norm(
    storage: Storage,
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
    ``input`` is exact, and nothing is stored unless ``weight`` needs a gradient. That of ``bias``
    is always exact.

    Returns:
        The shape of ``input``, bit for bit that of torch.
    """
    if training:
        F._verify_batch_size(input.shape)  # type: ignore[attr-defined]
        norm = _BatchNorm((running_mean, running_var), momentum, eps)
        return normalise(storage, input, weight, bias, norm)
    needed = weight is not None and weight.requires_grad
    record = store(input, storage, channels=1) if needed else find(input, storage) or NOTHING
    stored = record if needed else NOTHING
    out: Tensor = _FrozenBatchNorm.apply(
        input, weight, bias, running_mean, running_var, eps, record.read, *stored.tensors
    )
    if record.read:
        function = partial(F.batch_norm, eps=eps)
        more = (running_mean, running_var, weight, bias)
        leave(out, record.then(function, *more, fresh=True), storage)
    return out


class _FrozenBatchNorm(Function):
    """Batch norm by its running statistics: affine, so its input's gradient needs no value."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
        read: Read | None,
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, running_mean, running_var, *stored)
        ctx.eps, ctx.read, ctx.shape = eps, read, x.shape
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, var, *stored = ctx.saved_tensors
        x = ctx.read(*stored) if stored else grad.new_empty(()).expand(ctx.shape)
        release(ctx.read)  # what followed has read it before
        gradients = aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, list(ctx.needs_input_grad[:3])
        )
        return *gradients, None, None, None, None, *(None,) * len(stored)


@dataclass
class _LayerNorm(Norm):
    shape: list[int]
    eps: float

    channels: ClassVar[int] = -1
    rectified: ClassVar[bool] = False

    def population(self, x: Tensor) -> int:
        return math.prod(self.shape)

    def affine_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(self.shape)

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
    ) -> tuple[Tensor | None, ...]:
        value, mean, step, rest = reading
        mean = mean.expand_as(step).contiguous()
        d_x, d_weight, d_bias = aten.native_layer_norm_backward(
            grad, value, self.shape, mean, step, weight, bias, needs
        )
        scaled = needs[0] and rest is not None
        return (d_x.mul_(rest) if scaled else d_x), d_weight, d_bias


def layer_norm(
    storage: Storage,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.layer_norm` of ``input`` ``(..., *normalized_shape)``.

    1/std is kept exactly; the gradients of ``input`` and ``weight`` are approximate where the codec
    is, that of ``bias`` is exact. The output is bit for bit that of torch.
    """
    return normalise(storage, input, weight, bias, _LayerNorm(list(normalized_shape), eps))


@dataclass
class _RMSNorm(_LayerNorm):
    """``weight * x * rstd``, with 1/std about zero."""

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
    ) -> tuple[Tensor | None, ...]:
        value, _, step, rest = reading
        normalised = value * step if rest is None else value
        product = grad * normalised
        d_weight = product.sum_to_size(self.shape) if needs[1] else None
        if not needs[0]:
            return None, d_weight, None
        if weight is not None:
            # not in place: of a single token, the product is the weight's gradient
            grad, product = grad * weight, product * weight
        rstd = step if rest is None else rest
        d_x = (grad - normalised * product.mean(self._dims, keepdim=True)) * rstd
        return d_x, d_weight, None

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))


def rms_norm(
    storage: Storage,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """:func:`torch.nn.functional.rms_norm` of ``input`` ``(..., *normalized_shape)``.

    Stored, and approximate, as in :func:`layer_norm`.
    """
    if eps is None:
        eps = torch.finfo(torch.promote_types(input.dtype, torch.float32)).eps
    return normalise(storage, input, weight, None, _RMSNorm(list(normalized_shape), eps))


@dataclass
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
    ) -> tuple[Tensor | None, ...]:
        value, mean, step, rest = reading
        if rest is None:
            mean, step = self._of_groups(mean), self._of_groups(step)
        else:  # whose centre is one of each channel
            value = ((value - mean) * step).to(grad.dtype)
            rest = rest * step
            mean = step.new_zeros(grad.shape[0], self.groups)
            step = mean + 1
        d_x, d_weight, d_bias = aten.native_group_norm_backward(
            grad.contiguous(), value, mean, step, weight, *self._geometry(grad), needs
        )
        scaled = needs[0] and rest is not None
        return (d_x.mul_(rest) if scaled else d_x), d_weight, d_bias

    def _of_groups(self, of_channels: Tensor) -> Tensor:
        batch, channels = of_channels.shape[:2]
        return of_channels.view(batch, self.groups, channels // self.groups)[..., 0].contiguous()

    def _geometry(self, x: Tensor) -> tuple[int, int, int, int]:
        batch, channels, *spatial = x.shape
        return batch, channels, math.prod(spatial), self.groups


def group_norm(
    storage: Storage,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.group_norm` of ``input`` ``(batch, channels, ...)``.

    Stored, and approximate, as in :func:`layer_norm`.
    """
    F._verify_batch_size([math.prod(input.shape[:2]) // num_groups, num_groups, *input.shape[2:]])  # type: ignore[attr-defined]
    if input.is_cuda and torch.is_autocast_enabled("cuda"):
        input = input.float()  # autocast does so for F.group_norm, not for the native operation
    return normalise(storage, input, weight, bias, _GroupNorm(num_groups, eps))


@dataclass
class _InstanceNorm(_BatchNorm):
    """A batch norm to which each channel of each sample is a channel of its own, as in torch."""

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
        return no_view(out.view(x.shape)), mean, rstd

    def again(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        # by the statistics of ``x``, of which there may be some samples alone
        return _InstanceNorm((None, None), self.momentum, self.eps).forward(x, weight, bias)[0]

    def backward(
        self,
        grad: Tensor,
        reading: Reading,
        weight: Tensor | None,
        bias: Tensor | None,
        needs: list[bool],
    ) -> tuple[Tensor | None, ...]:
        batch = len(grad)
        value, mean, step, rest = reading
        reading = Reading(_as_one_sample(value), mean.expand_as(step), step, rest)
        d_x, *others = super().backward(
            _as_one_sample(grad), reading, _repeated(weight, batch), _repeated(bias, batch), needs
        )
        d_x = None if d_x is None else d_x.view(grad.shape)
        return d_x, *(None if d is None else d.view(batch, -1).sum(0) for d in others)

    def _of_channels(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[1], *(1,) * (x.ndim - 2))


def _as_one_sample(x: Tensor) -> Tensor:
    return x.contiguous().view(1, -1, *x.shape[2:])


def _repeated(of_channels: Tensor | None, batch: int) -> Tensor | None:
    return None if of_channels is None else of_channels.repeat(batch)


def instance_norm(
    storage: Storage,
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

    Stored, and approximate, as in :func:`batch_norm`.
    """
    if not use_input_stats:
        statistics = (running_mean, running_var)
        return batch_norm(storage, input.contiguous(), *statistics, weight, bias, False, eps=eps)
    F._verify_spatial_size(input.shape)  # type: ignore[attr-defined]
    norm = _InstanceNorm((running_mean, running_var), momentum, eps)
    return normalise(storage, input, weight, bias, norm)
