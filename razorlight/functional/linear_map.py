"""Linear maps without a weight: their gradient needs nothing of their input but its shape."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from razorlight.functional.backward import once_differentiable, vjp
from razorlight.sharing import no_view


class _LinearMap(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.shape, ctx.strides, ctx.function = x.shape, x.stride(), function
        out = function(x)
        # a compiler cannot ask
        return no_view(out) if torch.compiler.is_compiling() or out._is_view() else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # the gradient is the same at any input
        anywhere = grad.new_empty_strided(ctx.shape, ctx.strides)
        differentiate = torch.func.vjp if torch.compiler.is_compiling() else vjp
        pull_back = differentiate(ctx.function, anywhere)[1]
        return pull_back(grad)[0], None


def linear_map(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``, which must be linear; torch would keep ``x``."""
    out: Tensor = _LinearMap.apply(x, function)
    return out
