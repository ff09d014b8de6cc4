"""Linear layers. Their input is stored for the gradient of the weight."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight._torch import in_kernel_dtype
from razorlight.functional.autocast import cast, matmul_dtype
from razorlight.functional.operation import (
    Gradients,
    Needs,
    Operation,
    Result,
    Saved,
    accumulate,
    run,
    run_with_by_products,
)
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import (
    NOTHING,
    LinearOutput,
    Record,
    attach_product,
    find,
    samples_of,
    store,
)


def linear(plan: LayerPlan, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.linear`; ``input`` is stored for the gradient of the weight.

    The gradients of ``input`` and ``bias`` are exact. A vector is left to torch.

    Args:
        plan: the plan by which ``input`` is stored. Nothing is stored if ``weight`` is frozen.
        input: ``(..., in)``.
        weight: ``(out, in)``.
        bias: ``(out,)``.

    Returns:
        ``(..., out)``, bit for bit that of torch.
    """
    if input.ndim == 1:  # torch has another kernel for vectors, which rounds differently
        return F.linear(input, weight, bias)
    dtype = matmul_dtype(input)
    is_trained = weight.requires_grad
    record = store(input, plan, dtype, channels=-1) if is_trained else NOTHING
    source = None
    if is_trained and plan.shares:
        operation = _Linear(dtype, has_stand_in=True)
        out, (stand_in,) = run_with_by_products(operation, record, input, weight, bias)
        source = LinearOutput(stand_in, weight, bias, record, dtype)
    else:
        out = run(_Linear(dtype), record, input, weight, bias)
    known = record if is_trained else find(input, plan, dtype)
    attach_product(out, known, plan, partial(_product, dtype=dtype), weight, bias, source)
    return out


def addmm(
    plan: LayerPlan,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor:
    """:func:`torch.addmm` as a :func:`linear` of ``mat1``, whose weight is ``mat2`` transposed.

    Args:
        plan: the plan by which ``mat1`` is stored.
        input: the bias, ``(out,)``. Any other shape is left to torch.
        mat1: ``(tokens, in)``.
        mat2: ``(in, out)``.
        beta: factor of the bias. Any other value than 1 is left to torch.
        alpha: factor of the product. Any other value than 1 is left to torch.
    """
    if input.ndim != 1 or (beta, alpha) != (1, 1):
        return torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha)
    return linear(plan, mat1, mat2.mT, input)


@dataclass(eq=False)
class _Linear(Operation):
    dtype: torch.dtype
    has_stand_in: bool = False

    def forward(self, needs: Needs, x: Tensor, weight: Tensor, bias: Tensor | None) -> Result:
        out = _product(x, in_kernel_dtype(weight, self.dtype), bias, dtype=self.dtype)
        stand_in = x.new_empty(()).expand(x.shape) if self.has_stand_in else None
        return Result(out, (weight if needs[0] else None,), stand_in=stand_in)

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        (weight,) = saved
        d_weight = weight_gradient(grad, record) if needs[1] else None
        d_x = None if weight is None else grad @ cast(weight, self.dtype)
        d_bias = grad.flatten(0, -2).sum(0) if needs[2] else None
        return d_x, d_weight, d_bias


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    bias = None if bias is None else cast(bias, dtype)
    return F.linear(cast(x, dtype), cast(weight, dtype), bias)


def weight_gradient(grad: Tensor, record: Record) -> Tensor:
    """The gradient of a Linear's weight.

    Args:
        grad: the gradient of the output, ``(..., out)``.
        record: the record of the input, ``(..., in)``.
    """
    chunks, read = record.in_chunks()
    total = None
    for samples in chunks:
        # Tokens are flattened first: a batched product would hold a weight gradient per sample.
        part = samples_of(grad, samples).flatten(0, -2).mT @ read(samples).flatten(0, -2)
        total = part if len(chunks) == 1 else accumulate(total, part)
    assert total is not None
    return cast(total, grad.dtype)
