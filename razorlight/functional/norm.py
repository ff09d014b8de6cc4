"""The norms of single samples: layer norm, group norm and RMS norm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight._torch import check_batch_size, is_gpu
from razorlight.codecs.kernels import Codes, NormKernels
from razorlight.functional.normalise import NORMS, BackwardInputs, Norm, Reading, normalise
from razorlight.functional.operation import Gradients
from razorlight.planning.layer_plan import LayerPlan

aten = torch.ops.aten


@dataclass(eq=False)
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
        self, kernels: NormKernels, codes: Codes, given: BackwardInputs
    ) -> Gradients | None:
        grad, weight, _, _, rstd, needs = given
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


@dataclass(eq=False)
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


@dataclass(eq=False)
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
    if is_gpu(input.device) and torch.is_autocast_enabled(input.device.type):
        input = input.float()  # autocast casts for F.group_norm, but not for the native operation
    return normalise(plan, input, weight, bias, _GroupNorm(num_groups, eps))


def _scaled(d_x: Tensor | None, scale: Tensor | None) -> Tensor | None:
    return d_x if d_x is None or scale is None else d_x.mul_(scale)


NORMS |= {
    "layer": lambda shape: _LayerNorm(shape, 0.0),
    "rms": lambda shape: _RMSNorm(shape, 0.0),
}
