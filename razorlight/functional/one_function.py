"""A layer that computes one function in several operations, and stores as that one function."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.records import NOTHING, Record, carry_record


def as_one_function(
    forward: Callable[..., Tensor], equivalent: Callable[..., Tensor], x: Tensor
) -> Tensor:
    """``forward(x)``, bit for bit, with the gradient and the records of ``equivalent(x)``.

    Args:
        forward: computes the output in several operations, each of which would keep its operands.
        equivalent: computes the same output, up to rounding, with functions of
            :mod:`razorlight.functional`.
        x: the input, any shape.
    """
    with torch.no_grad():
        out = forward(x)
    like = equivalent(x)
    replaced = run(_Replaced(like.dtype), NOTHING, like, out)
    carry_record(like, replaced)
    return replaced


@dataclass(eq=False)
class _Replaced(Operation):
    dtype: torch.dtype

    def forward(self, needs: Needs, like: Tensor, out: Tensor) -> Result:
        # If forward returned ``out`` itself, autograd would make a view of it.
        return Result(out.view_as(out))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        return grad.to(self.dtype), None
