"""What a layer writes out in many operations, stored as the one function that it stands for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from razorlight.functional.backward import once_differentiable
from razorlight.sharing import hand_on, no_view


class _Output(Function):
    @staticmethod
    def forward(ctx: Any, same: Tensor, out: Tensor) -> Tensor:
        ctx.dtype = same.dtype
        return no_view(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad.to(ctx.dtype), None


def written_out(forward: Callable[..., Tensor], same: Callable[..., Tensor], x: Tensor) -> Tensor:
    """``forward(x)``, bit for bit, with the gradient and the records of ``same(x)``.

    Args:
        forward: computes the output in operations that would each keep their operands.
        same: computes it, to rounding, by functions of :mod:`razorlight.functional`.
        x: any shape.
    """
    with torch.no_grad():
        out = forward(x)
    like = same(x)
    replaced: Tensor = _Output.apply(like, out)
    hand_on(like, replaced)
    return replaced
