"""The matrix product of two activations. Both are stored."""

from dataclasses import dataclass

import torch
from torch import Tensor

from razorlight.functional.autocast import cast, matmul_dtype
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import NOTHING, Record, join, store


def matmul(plan: LayerPlan, input: Tensor, other: Tensor) -> Tensor:
    """:func:`torch.matmul` of ``(..., n, m)`` and ``(..., m, p)``; both are stored.

    The gradient of each operand reads the other operand, and is approximate if the codec is.
    Vectors are left to torch.
    """
    if min(input.ndim, other.ndim) < 2:
        return torch.matmul(input, other)
    dtype = matmul_dtype(input)
    a, b = cast(input, dtype), cast(other, dtype)
    record = join(
        store(a, plan) if b.requires_grad else NOTHING,
        store(b, plan) if a.requires_grad else NOTHING,
    )
    return run(_Matmul(a.shape, b.shape), record, a, b)


@dataclass(eq=False)
class _Matmul(Operation):
    shape: torch.Size
    other_shape: torch.Size

    def forward(self, needs: Needs, a: Tensor, b: Tensor) -> Result:
        return Result(a @ b)

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        a, b = record.read()
        d_a = (grad @ b.mT).sum_to_size(self.shape) if needs[0] else None
        d_b = (a.mT @ grad).sum_to_size(self.other_shape) if needs[1] else None
        return d_a, d_b
