"""Softmax and attention whose operands are stored by a codec."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from razorlight.codecs import Codec
from razorlight.functional.autocast import matmul_dtype
from razorlight.records import Record, attach, join, reader, store


class _Softmax(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dim: int, dtype: torch.dtype | None, codec: Codec
    ) -> tuple[Tensor, ...]:
        out = F.softmax(x, dim, dtype=dtype)
        stored = codec.encode(out)
        ctx.save_for_backward(*stored)
        ctx.mark_non_differentiable(*stored)
        ctx.dim, ctx.dtype, ctx.read = dim, x.dtype, reader(out, codec, out.dtype)
        return out, *stored

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        out = ctx.read(*ctx.saved_tensors)
        d_x = torch.ops.aten._softmax_backward_data(grad, out, ctx.dim, ctx.dtype)
        return d_x, None, None, None


def softmax(
    codec: Codec,
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """:func:`torch.softmax` along ``dim``; its *output* is stored by ``codec``.

    With the stored P~ the gradient is ``P~ * (g - sum(g * P~))``. The product with the values that
    follows in an attention reads the same record.
    """
    if dim is None:
        return F.softmax(input, dim, dtype=dtype)
    out, *stored = _Softmax.apply(input, dim, dtype, codec)
    attach(out, Record(tuple(stored), reader(out, codec, out.dtype)), codec, out.dtype)
    return out


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
        read: Callable[..., Sequence[Tensor]],
        *stored: Tensor,
    ) -> Tensor:
        rng_state = _get_rng_state(query) if options["dropout_p"] else None
        ctx.save_for_backward(mask, rng_state, *stored)
        ctx.options, ctx.read = options, read
        return F.scaled_dot_product_attention(query, key, value, mask, **options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mask, rng_state, *stored = ctx.saved_tensors
        operands = [*ctx.read(*stored), mask]
        needs = ctx.needs_input_grad[:4]
        for i, (operand, needed) in enumerate(zip(operands, needs, strict=True)):
            operands[i] = operand.detach().requires_grad_() if needed else operand
        wanted = [operand for operand, needed in zip(operands, needs, strict=True) if needed]
        with (
            torch.enable_grad(),
            torch.autocast(grad.device.type, enabled=False),
            _restored_rng(grad, rng_state),
        ):
            out = F.scaled_dot_product_attention(*operands, **ctx.options)
        gradients = iter(torch.autograd.grad(out, wanted, grad))
        d_operands = [next(gradients) if needed else None for needed in needs]
        return *d_operands, None, None, *(None,) * len(stored)


def scaled_dot_product_attention(
    codec: Codec,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention`; q, k and v are stored by ``codec``.

    The fused kernels never form the matrix of probabilities, so there is none to store: backward
    runs the same kernel on the stored operands, with the same dropout, and differentiates it.

    Args:
        codec: how q ``(..., heads, n, d)``, k ``(..., heads, m, d)`` and v are stored.
        query: ``(..., heads, n, d)``.
        key: ``(..., heads, m, d)``.
        value: ``(..., heads, m, e)``.
        attn_mask: broadcastable to ``(..., heads, n, m)``; kept as it is, with its own gradient.
        dropout_p: of the probabilities; the generator's state is stored, and no mask.
        is_causal: as in torch, like the rest.
        scale: of the scores; ``1 / sqrt(d)`` by default.
        enable_gqa: fewer heads of keys than of queries.
    """
    dtype = matmul_dtype(query)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.to(dtype)
    options = {
        "dropout_p": dropout_p,
        "is_causal": is_causal,
        "scale": scale,
        "enable_gqa": enable_gqa,
    }
    record = join(store(query, codec), store(key, codec), store(value, codec))
    return _Attention.apply(query, key, value, attn_mask, options, record.read, *record.tensors)


def _get_rng_state(x: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


@contextmanager
def _restored_rng(x: Tensor, state: Tensor | None) -> Iterator[None]:
    """Draw inside as at ``state``, on the device of ``x``, and leave the generators untouched."""
    if state is None:
        yield
        return
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        if x.is_cuda:
            torch.cuda.set_rng_state(state, x.device)
        else:
            torch.set_rng_state(state)
        yield


# F.multi_head_attention_forward hands itself over whole to an active TorchFunctionMode, and its
# inner calls (linear, attention) would then pass unseen. This is the same function without that
# first step.
multi_head_attention_forward = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)
