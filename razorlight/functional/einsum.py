"""Sums of products of two activations, as ``torch.einsum`` spells them. Both are stored."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from razorlight.functional.autocast import cast, matmul_dtype
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import NOTHING, Record, join, store


def einsum(plan: LayerPlan, equation: Any, *operands: Any) -> Tensor:
    """:func:`torch.einsum` of two tensors, such as ``bhqd,bhkd->bhqk``; both are stored.

    The gradient of each operand reads the other operand, and is approximate if the codec is. Left
    to torch are other numbers of operands, equations without ``->``, and those that sum over an
    index of one operand alone or take a diagonal.
    """
    terms = _terms(equation) if len(operands) == 2 else None
    if terms is None:
        return torch.einsum(equation, *operands)
    dtype = matmul_dtype(operands[0])
    a, b = (cast(operand, dtype) for operand in operands)
    record = join(
        store(a, plan) if b.requires_grad else NOTHING,
        store(b, plan) if a.requires_grad else NOTHING,
    )
    return run(_Einsum(terms, a.shape, b.shape), record, a, b)


class _Terms(NamedTuple):
    """The indices of the operands and of the output."""

    a: str
    b: str
    out: str


def _terms(equation: Any) -> _Terms | None:
    """The terms of an equation whose gradients are such sums again; None of any other."""
    if not isinstance(equation, str):
        return None
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    a, _, b = inputs.partition(",")
    indices = [[*term.replace("...", ".")] for term in (a, b, out)]
    own, other, result = (set(each) for each in indices)
    is_repeated = any(len(set(each)) < len(each) for each in indices)
    is_summed_alone = not (own <= other | result and other <= own | result)
    if not arrow or is_repeated or is_summed_alone:
        return None
    return _Terms(a, b, out)


@dataclass(eq=False)
class _Einsum(Operation):
    terms: _Terms
    shape: torch.Size
    other_shape: torch.Size

    def forward(self, needs: Needs, a: Tensor, b: Tensor) -> Result:
        return Result(torch.einsum(f"{self.terms.a},{self.terms.b}->{self.terms.out}", a, b))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        (a, b), terms = record.read(), self.terms
        d_a = d_b = None
        if needs[0]:  # an entry of size 1 is repeated, as in a product of matrices
            d_a = torch.einsum(f"{terms.out},{terms.b}->{terms.a}", grad, b)
            d_a = d_a.sum_to_size(self.shape)
        if needs[1]:
            d_b = torch.einsum(f"{terms.out},{terms.a}->{terms.b}", grad, a)
            d_b = d_b.sum_to_size(self.other_shape)
        return d_a, d_b
