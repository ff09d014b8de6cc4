"""Linear maps without a weight. Their gradient needs only the shape of the input."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from razorlight._torch import vjp
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.records import NOTHING, Record


def linear_map(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``, for a linear ``function``. torch would keep ``x``; this stores nothing."""
    return run(_LinearMap(function, x.shape, x.stride()), NOTHING, x)


@dataclass(eq=False)
class _LinearMap(Operation):
    function: Callable[[Tensor], Tensor]
    shape: torch.Size
    strides: tuple[int, ...]

    def forward(self, needs: Needs, x: Tensor) -> Result:
        return Result(self.function(x))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        # The gradient is the same at any input, so the input is not even initialised.
        anywhere = grad.new_empty_strided(self.shape, self.strides)
        return vjp(self.function, anywhere)[1](grad)
