"""Elementwise products: gated units, layer scale, squeeze and excitation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from razorlight.functional.linear import weight_gradient
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import (
    NOTHING,
    LinearOutput,
    Record,
    as_it_is,
    attach_record,
    find,
    join,
    made_from,
    product_of,
    store,
)


def multiply(plan: LayerPlan, input: Tensor, other: Tensor) -> Tensor:
    """``input * other``.

    If both tensors have one shape, each is stored for the gradient of the other. If one tensor is
    much smaller, it is stored unchanged, and the larger tensor is stored for the gradient of the
    smaller. In both cases the record of the product is derived from the two. If the larger tensor
    is the output of a Linear, and the smaller a learned scale ``(n,)``, nothing more is stored:
    both gradients follow from the input of the Linear. Any other product is left to torch.
    """
    if not (plan.shares and isinstance(other, Tensor)):
        return input * other
    if input.shape == other.shape:
        return _multiply_alike(plan, input, other)
    if _broadcasts(other, input):
        return _scale(plan, input, other)
    return _scale(plan, other, input) if _broadcasts(input, other) else input * other


def _broadcasts(small: Tensor, x: Tensor) -> bool:
    """Whether ``small`` broadcasts to ``x`` and has at most an eighth of its entries."""
    return (
        8 * small.numel() <= x.numel() and torch.broadcast_shapes(small.shape, x.shape) == x.shape
    )


def _multiply_alike(plan: LayerPlan, a: Tensor, b: Tensor) -> Tensor:
    record = join(
        store(a, plan, channels=-1) if b.requires_grad else NOTHING,
        store(b, plan, channels=-1) if a.requires_grad else NOTHING,
    ).cached()
    out = run(_Product(a.dtype, b.dtype), record, a, b)
    is_whole = a.requires_grad and b.requires_grad
    attach_record(out, record.then(product_of, returns_new=True) if is_whole else None, plan)
    return out


def _scale(plan: LayerPlan, x: Tensor, scale: Tensor) -> Tensor:
    source = made_from(x)
    is_learned = isinstance(scale, nn.Parameter) and scale.requires_grad and scale.ndim == 1
    if is_learned and isinstance(source, LinearOutput):
        operation = _ScaledLinear(source.dtype)
        inputs = (source.input, source.weight, source.bias, scale, x.detach())
        return run(operation, source.record, *inputs)
    channels = -1 if scale.ndim == 1 else 1
    record = store(x, plan, channels=channels) if scale.requires_grad else NOTHING
    out = run(_Scale(x.dtype), record, x, scale)
    if known := record if record.reader else find(x, plan):
        both = join(known, as_it_is(scale))
        within_samples = scale.ndim == x.ndim and len(scale) == len(x)
        product = both.then(product_of, returns_new=True, within_samples=within_samples)
        attach_record(out, product, plan)
    return out


@dataclass(eq=False)
class _Product(Operation):
    dtype: torch.dtype
    other_dtype: torch.dtype

    def forward(self, needs: Needs, a: Tensor, b: Tensor) -> Result:
        return Result(a * b)

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        (a, b), _ = record.take()
        d_a = (grad * b).to(self.dtype) if needs[0] else None
        d_b = (grad * a).to(self.other_dtype) if needs[1] else None
        return d_a, d_b


@dataclass(eq=False)
class _Scale(Operation):
    dtype: torch.dtype

    def forward(self, needs: Needs, x: Tensor, scale: Tensor) -> Result:
        return Result(x * scale, (scale,))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        (scale,) = saved
        assert scale is not None
        d_scale = (grad * record.read()).sum_to_size(scale.shape) if needs[1] else None
        return (grad * scale).to(self.dtype), d_scale


@dataclass(eq=False)
class _ScaledLinear(Operation):
    """``scale * linear(x)``. Its gradients need ``x`` alone, and not the output of the Linear.

    Let ``G = g^T x``. The gradient of the weight is ``scale * G`` row by row. The gradient of the
    scale is the row sum of ``weight * G``, plus ``bias * sum(g)``.
    """

    dtype: torch.dtype

    def forward(
        self,
        needs: Needs,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        product: Tensor,
    ) -> Result:
        return Result(product * scale, (weight, bias, scale))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        weight, bias, scale = saved
        assert weight is not None
        assert scale is not None
        # Under autocast the scaled product is in float32. Its gradient gets the Linear's dtype.
        whole = weight_gradient(grad.to(self.dtype), record).to(weight.dtype)
        total = grad.flatten(0, -2).sum(0)
        d_scale = (whole * weight).sum(1) + (0 if bias is None else total * bias)
        d_weight = whole.mul_(scale[:, None])
        d_bias = None if bias is None else total * scale
        d_x = (grad * scale).to(self.dtype) @ weight.to(self.dtype)
        return d_x, d_weight, d_bias, d_scale.to(scale.dtype), None
