"""Linear and matrix product whose operands are stored for backward."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from razorlight.functional.autocast import cast, matmul_dtype
from razorlight.functional.backward import accumulate, once_differentiable
from razorlight.records import (
    NOTHING,
    Read,
    Record,
    as_it_is,
    in_pieces,
    join,
    product_of,
    read_last,
)
from razorlight.sharing import Storage, find, leave, leave_product, no_view, origin_of, store


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        read: Read,
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, *stored)
        ctx.dtype, ctx.read, ctx.stored = dtype, read, len(stored)
        if weight.dtype != dtype and not torch.compiler.is_compiling():
            # by it torch chooses the kernel for tokens that do not lie one behind the other
            weight = weight.to(dtype).requires_grad_(weight.requires_grad)
        return no_view(_linear(x, weight, bias, dtype=dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *stored = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_weight = _weight_gradient(grad, ctx.read, stored) if needs_weight else None
        d_x = grad @ weight.to(ctx.dtype) if needs_x else None
        d_bias = grad.flatten(0, -2).sum(0) if needs_bias else None
        return d_x, d_weight, d_bias, None, None, *(None,) * ctx.stored


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def _weight_gradient(grad: Tensor, read: Read, stored: Sequence[Tensor]) -> Tensor:
    pieces, value = in_pieces(read, stored)
    total = None
    for samples in pieces:
        # tokens flattened first: a batched product would hold a weight gradient for each sample
        part = grad[samples].flatten(0, -2).mT @ value(samples).flatten(0, -2)
        total = part if len(pieces) == 1 else accumulate(total, part)
    assert total is not None
    return total.to(grad.dtype)


class LinearOutput(NamedTuple):
    """What a Linear's output was made of, for a scale that follows it.

    Attributes:
        input: by its gradient alone, for whoever holds the output holds this too.
        weight: of the Linear.
        bias: of the Linear.
        record: of the input.
        dtype: of the product.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    record: Record
    dtype: torch.dtype

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What may not change in between."""
        return (self.weight, *self.record.tensors)


def linear(storage: Storage, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.linear`; ``input`` is stored for the weight's gradient.

    The gradients of ``input`` and ``bias`` are exact. A vector is left to torch.

    Args:
        storage: how ``input`` is stored, if ``weight`` needs a gradient; else nothing is.
        input: ``(..., in)``.
        weight: ``(out, in)``.
        bias: ``(out,)``.

    Returns:
        ``(..., out)``, bit for bit that of torch.
    """
    if input.ndim == 1:  # another kernel, whose bits a matrix of one row does not give
        return F.linear(input, weight, bias)
    dtype = matmul_dtype(input)
    record = store(input, storage, dtype, channels=-1) if weight.requires_grad else NOTHING
    out: Tensor = _Linear.apply(input, weight, bias, dtype, record.read, *record.tensors)
    known = record if weight.requires_grad else find(input, storage, dtype)
    origin = None
    if weight.requires_grad and storage.shares:
        origin = LinearOutput(_Stem.apply(input), weight, bias, record, dtype)
    function = partial(_linear, dtype=dtype)
    leave_product(out, known, storage, function, weight, bias, origin)
    return out


class _Stem(Function):
    """A tensor without memory, in the shape of another, to which its gradient goes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.new_empty(()).expand(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def addmm(
    storage: Storage,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor:
    """:func:`torch.addmm` as a :func:`linear` of ``mat1`` whose weight ``mat2`` lies transposed.

    Args:
        storage: how ``mat1`` is stored.
        input: the bias, ``(out,)``; another is left to torch.
        mat1: ``(tokens, in)``.
        mat2: ``(in, out)``.
        beta: of the bias; another than 1 is left to torch.
        alpha: of the product; another than 1 is left to torch.
    """
    if input.ndim != 1 or (beta, alpha) != (1, 1):
        return torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha)
    return linear(storage, mat1, mat2.mT, input)


class _ScaledLinear(Function):
    """``scale * linear(x)``, whose gradients need ``x`` alone and not the Linear's output.

    With ``G = g^T x``, that of the weight is ``scale G`` row by row, and that of the scale is the
    row sum of ``weight * G`` plus ``bias * sum(g)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        product: Tensor,
        dtype: torch.dtype,
        read: Read,
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, bias, scale, *stored)
        ctx.dtype, ctx.read = dtype, read
        return product * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, scale, *stored = ctx.saved_tensors
        # an autocast product is scaled in float32; its gradient comes back in the Linear's dtype
        whole = _weight_gradient(grad.to(ctx.dtype), ctx.read, stored).to(weight.dtype)
        total = grad.flatten(0, -2).sum(0)
        d_scale = (whole * weight).sum(1) + (0 if bias is None else total * bias)
        d_weight = whole.mul_(scale[:, None])
        d_bias = None if bias is None else total * scale
        d_x = (grad * scale).to(ctx.dtype) @ weight.to(ctx.dtype)
        nones = (None,) * (3 + len(stored))
        return d_x, d_weight, d_bias, d_scale.to(scale.dtype), *nones


class _Scale(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, read: Read, *stored: Tensor) -> Tensor:
        ctx.save_for_backward(scale, *stored)
        ctx.read, ctx.dtype = read, x.dtype
        return x * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scale, *stored = ctx.saved_tensors
        d_scale = (grad * ctx.read(*stored)).sum_to_size(scale.shape) if stored else None
        return (grad * scale).to(ctx.dtype), d_scale, None, *(None,) * len(stored)


class _Product(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, read: Read, *stored: Tensor) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.read, ctx.dtypes = read, (a.dtype, b.dtype)
        return a * b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stored = ctx.saved_tensors
        (a, b), _ = read_last(ctx.read, stored)
        d_a = (grad * b).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
        d_b = (grad * a).to(ctx.dtypes[1]) if ctx.needs_input_grad[1] else None
        return d_a, d_b, None, *(None,) * len(stored)


def multiply(storage: Storage, input: Tensor, other: Tensor) -> Tensor:
    """``input * other``: the gate of a gated unit, layer scale, squeeze and excitation.

    Of the same shape, each is stored for the other's gradient, and their product derived from both.
    If one is much the smaller, the larger is stored for the gradient of the smaller, and this one
    as it is, and their product derived from both; but nothing is stored if the larger is a Linear's
    output and the smaller a learned scale ``(n,)``: the gradients of both follow from the Linear's
    input (:class:`_ScaledLinear`).
    Any other product is left to torch.
    """
    if not (storage.shares and isinstance(other, Tensor)):
        return input * other
    if input.shape == other.shape:
        return _gate(storage, input, other)
    if _broadcasts(other, input):
        return _scale(storage, input, other)
    return _scale(storage, other, input) if _broadcasts(input, other) else input * other


def _gate(storage: Storage, a: Tensor, b: Tensor) -> Tensor:
    record = join(
        store(a, storage, channels=-1) if b.requires_grad else NOTHING,
        store(b, storage, channels=-1) if a.requires_grad else NOTHING,
    ).for_neighbours()
    out: Tensor = _Product.apply(a, b, record.read, *record.tensors)
    both = a.requires_grad and b.requires_grad
    leave(out, record.then(product_of, fresh=True) if both else None, storage)
    return out


def _scale(storage: Storage, x: Tensor, scale: Tensor) -> Tensor:
    origin = origin_of(x)
    learned = isinstance(scale, nn.Parameter) and scale.requires_grad and scale.ndim == 1
    if learned and isinstance(origin, LinearOutput):
        source, weight, bias, record, dtype = origin
        return _ScaledLinear.apply(
            source, weight, bias, scale, x.detach(), dtype, record.read, *record.tensors
        )
    channels = -1 if scale.ndim == 1 else 1
    record = store(x, storage, channels=channels) if scale.requires_grad else NOTHING
    out: Tensor = _Scale.apply(x, scale, record.read, *record.tensors)
    if known := record if record.read else find(x, storage):
        both = join(known, as_it_is(scale))
        by_sample = scale.ndim == x.ndim and len(scale) == len(x)
        leave(out, both.then(product_of, fresh=True, by_sample=by_sample), storage)
    return out


def _broadcasts(small: Tensor, x: Tensor) -> bool:
    """Whether each entry of ``small`` meets many of ``x``."""
    return (
        8 * small.numel() <= x.numel() and torch.broadcast_shapes(small.shape, x.shape) == x.shape
    )


class _Matmul(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, read: Read, *stored: Tensor) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.read, ctx.shapes = read, (a.shape, b.shape)
        return a @ b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stored = ctx.saved_tensors
        a, b = ctx.read(*stored)
        d_a = (grad @ b.mT).sum_to_size(ctx.shapes[0]) if ctx.needs_input_grad[0] else None
        d_b = (a.mT @ grad).sum_to_size(ctx.shapes[1]) if ctx.needs_input_grad[1] else None
        return d_a, d_b, None, *(None,) * len(stored)


def matmul(storage: Storage, input: Tensor, other: Tensor) -> Tensor:
    """:func:`torch.matmul` of ``(..., n, m)`` and ``(..., m, p)``; both are stored.

    Both gradients are approximate where the codec is: each reads the other operand. Vectors are
    left to torch.
    """
    if min(input.ndim, other.ndim) < 2:
        return torch.matmul(input, other)
    dtype = matmul_dtype(input)
    a, b = cast(input, dtype), cast(other, dtype)
    record = join(
        store(a, storage) if b.requires_grad else NOTHING,
        store(b, storage) if a.requires_grad else NOTHING,
    )
    return _Matmul.apply(a, b, record.read, *record.tensors)
