"""Elementwise functions that a kernel can compute while it decodes a value."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

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
]
"""The functions that the kernels know. A gradient is that of the input: it takes the gradient of
the output beside the input, or for ``relu`` beside the output."""


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


class Elementwise:
    """An elementwise function in torch code, with its name in the kernels.

    A kernel computes in float32 and rounds the last result alone, so it may differ from the torch
    code by a rounding.

    Args:
        name: the name of the function in the kernels.
        function: the torch code.
        dtype: the dtype of the result, or None if it is that of the value.
    """

    def __init__(
        self, name: Name, function: Callable[..., Tensor], dtype: torch.dtype | None = None
    ) -> None:
        self.name, self.function, self.dtype = name, function, dtype

    def __call__(self, *tensors: Tensor | None, **options: Any) -> Tensor:
        """Compute the function by torch code."""
        return self.function(*tensors, **options)

    def step(self, *more: Tensor | None) -> Step:
        """The function for a kernel, with its other arguments."""
        return Step(self.name, more, self.dtype)
