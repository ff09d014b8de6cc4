"""Elementwise functions that a kernel can compute while it decodes a value."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.codecs.base import scale_and_shift

aten = torch.ops.aten

Name = Literal[
    "cast",
    "affine",
    "affine_of_signs",
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "hardswish",
    "relu_gradient",
    "gelu_gradient",
    "gelu_tanh_gradient",
    "silu_gradient",
    "hardswish_gradient",
    "times",
]
"""The functions that the kernels know. A gradient is that of the input: it takes the gradient of
the output beside the input, or for ``relu`` beside the output. "times" is such a gradient if the
value is a slope."""


def affine(
    value: Tensor, mean: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """``value * weight + bias``."""
    if weight is None:
        return value.clone() if bias is None else value + bias
    return value * weight if bias is None else scale_and_shift(value, weight, bias)


def affine_of_signs(
    value: Tensor, mean: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """``(value - mean) * |weight| + bias``, of which a norm stores the value.

    If the centre, ``-mean``, is where the result is zero, the shift is zero, and the result has the
    sign of the value.
    """
    if weight is None or mean is None:
        return affine(value, mean, weight, bias)
    weight = weight.abs()
    shift = -mean * weight if bias is None else bias - mean * weight
    return scale_and_shift(value, weight, shift)


def _gradient(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    return lambda value, grad: function(grad, value, **options)


_TORCH: dict[Name, Callable[..., Tensor]] = {
    "cast": lambda value: value,
    "affine": affine,
    "affine_of_signs": affine_of_signs,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "relu_gradient": _gradient(aten.threshold_backward, threshold=0),
    "gelu_gradient": _gradient(aten.gelu_backward),
    "gelu_tanh_gradient": _gradient(aten.gelu_backward, approximate="tanh"),
    "silu_gradient": _gradient(aten.silu_backward),
    "hardswish_gradient": _gradient(aten.hardswish_backward),
    "times": torch.mul,
}


class Step(NamedTuple):
    """A function of a value and other tensors, for a kernel.

    Attributes:
        name: the name of the function.
        more: the other tensors, which broadcast to the value; None for a missing one.
        dtype: the dtype of the result, or None if it is that of the value.
    """

    name: Name
    more: tuple[Tensor | None, ...]
    dtype: torch.dtype | None


def dtype_after(dtype: torch.dtype, steps: Sequence[Step]) -> torch.dtype:
    """The dtype of a value of ``dtype`` after ``steps``."""
    for step in steps:
        dtype = step.dtype or dtype
    return dtype


def apply(value: Tensor, steps: Sequence[Step], dtype: torch.dtype) -> Tensor:
    """Compute ``steps`` by torch code, as a kernel does: in float32, and rounded once.

    Args:
        value: a value in float32.
        steps: functions of the value, one after the other.
        dtype: the dtype of the result.
    """
    for step in steps:
        more = (x if x is None else x.to(value.dtype) for x in step.more)
        value = _TORCH[step.name](value, *more)
    return value.to(dtype)


class Elementwise:
    """An elementwise function in torch code, with its name in the kernels.

    A kernel computes in float32 and rounds the last result alone, so it may differ from the torch
    code by a rounding.

    Args:
        name: the name of the function in the kernels.
        function: other torch code for the function, or None.
        dtype: the dtype of the result, or None if it is that of the value.
    """

    def __init__(
        self,
        name: Name,
        function: Callable[..., Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.name, self.dtype = name, dtype
        self.function = _TORCH[name] if function is None else function

    def __call__(self, *tensors: Tensor | None, **options: Any) -> Tensor:
        """Compute the function by torch code."""
        out = self.function(*tensors, **options)
        return out if self.dtype is None else out.to(self.dtype)

    def step(self, *more: Tensor | None) -> Step:
        """The function for a kernel, with its other arguments."""
        return Step(self.name, more, self.dtype)
