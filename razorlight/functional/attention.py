"""Softmax and attention whose operands are stored for backward."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.codecs import Codec, encode
from razorlight.functional.autocast import cast, matmul_dtype
from razorlight.functional.backward import Pullback, once_differentiable, vjp
from razorlight.records import Read, as_it_is, encoded_record, in_memory, join, read_last
from razorlight.sharing import Storage, leave, leave_stored, no_view, one_of_several, store


class _Softmax(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dim: int, dtype: torch.dtype | None, codec: Codec
    ) -> tuple[Tensor, ...]:
        out = F.softmax(x, dim, dtype=dtype)
        stored = encode(codec, in_memory(out.detach()))
        ctx.save_for_backward(*stored)
        ctx.mark_non_differentiable(*stored)
        ctx.dim, ctx.dtype = dim, x.dtype
        ctx.read = encoded_record(stored, out, codec, out.dtype).read
        return out, *stored

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        out = ctx.read(*ctx.saved_tensors)
        d_x = torch.ops.aten._softmax_backward_data(grad, out, ctx.dim, ctx.dtype)
        return d_x, None, None, None


def softmax(
    storage: Storage,
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """:func:`torch.softmax` along ``dim``; its *output* is stored.

    With the stored P~ the gradient is ``P~ * (g - sum(g * P~))``. The product with the values that
    follows in an attention reads the same record.
    """
    if dim is None:
        return F.softmax(input, dim, dtype=dtype)
    codec = storage.codec.of_values()
    out, *stored = _Softmax.apply(input, dim, dtype, codec)
    out = one_of_several(out)
    record = encoded_record(stored, out, codec, out.dtype)
    leave_stored(out, record, storage)
    return out


@dataclass(frozen=True)
class _Kernel:
    """:func:`torch.nn.functional.scaled_dot_product_attention` with its options."""

    dropout_p: float
    is_causal: bool
    scale: float | None
    enable_gqa: bool

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            mask,
            self.dropout_p,
            self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )


def _run(
    operands: Sequence[Any],
    kernel: _Kernel,
    needs: Sequence[bool],
    vjp: Callable[..., Any] = vjp,
) -> tuple[Tensor, Pullback]:
    """Attention of q, k, v and mask as read back, and what takes its gradient to theirs.

    Before them comes the generator's state at which dropout drew.
    """
    rng_state, *operands = operands
    wanted = [operand for operand, needed in zip(operands, needs, strict=True) if needed]

    def attend(*wanted: Tensor) -> Tensor:
        given = iter(wanted)
        return kernel(
            *(
                next(given) if needed else operand
                for operand, needed in zip(operands, needs, strict=True)
            )
        )

    device = wanted[0].device
    with torch.autocast(device.type, enabled=False), _restored_rng(device, rng_state):
        out, pull = vjp(attend, *wanted)

    return out, lambda grad: _spread(pull(grad), needs)


def _spread(gradients: Iterable[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    """``gradients`` at the places that need one, None at the others."""
    following = iter(gradients)
    return [next(following) if needed else None for needed in needs]


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        kernel: _Kernel,
        rerun: Read,
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.kernel, ctx.rerun, ctx.needs = kernel, rerun, ctx.needs_input_grad[:4]
        return no_view(kernel(query, key, value, mask))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stored = ctx.saved_tensors
        if torch.compiler.is_compiling():
            gradients = _compiled_gradients(grad, ctx.rerun(*stored), ctx.kernel, ctx.needs)
        else:
            (_, pullback), _ = read_last(ctx.rerun, stored)
            gradients = pullback(grad)
        return *gradients, None, None, *(None,) * len(stored)


def _compiled_gradients(
    grad: Tensor, operands: Sequence[Any], kernel: _Kernel, needs: Sequence[bool]
) -> list[Tensor | None]:
    _, *tensors = operands
    gradients = _gradients_operator(
        grad, *tensors, kernel.is_causal, kernel.scale, kernel.enable_gqa, needs
    )
    return _spread(gradients, needs)


def _gradients_by_operator(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    kernel = _Kernel(0.0, is_causal, scale, enable_gqa)
    _, pullback = _run([None, query, key, value, mask], kernel, needs, torch.func.vjp)
    return [gradient.contiguous() for gradient in pullback(grad) if gradient is not None]


def _like_operands(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *options: Any
) -> list[Tensor]:
    operands = (query, key, value, mask)
    return [
        operand.new_empty(operand.shape)
        for operand, needed in zip(operands, options[-1], strict=True)
        if needed and operand is not None
    ]


# differentiating in backward is nothing that a compiler could trace
_gradients_operator = torch.library.custom_op(
    "razorlight::attention_gradients", _gradients_by_operator, mutates_args=()
)
_gradients_operator.register_fake(_like_operands)


def scaled_dot_product_attention(
    storage: Storage,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention`; q, k and v are stored.

    The fused kernels never form the matrix of probabilities, so there is none to store: backward
    runs the same kernel on the stored operands, with the same dropout, and differentiates it. The
    projection that follows reads its input from there too. Left to torch are a fused kernel whose
    operands are stored as they are, for it keeps them by itself, and an attention with dropout
    under ``torch.compile``.

    Args:
        storage: how q ``(..., heads, n, d)``, k ``(..., heads, m, d)`` and v are stored.
        query: ``(..., heads, n, d)``.
        key: ``(..., heads, m, d)``.
        value: ``(..., heads, m, e)``.
        attn_mask: broadcastable to ``(..., heads, n, m)``; kept as it is, with its own gradient.
        dropout_p: of the probabilities; the generator's state is stored, and no mask.
        is_causal: as in torch, like the rest.
        scale: of the scores; ``1 / sqrt(d)`` by default.
        enable_gqa: fewer heads of keys than of queries.
    """
    kernel = _Kernel(dropout_p, is_causal, scale, enable_gqa)
    if dropout_p and torch.compiler.is_compiling():
        return kernel(query, key, value, attn_mask)
    dtype = matmul_dtype(query)
    query, key, value = cast(query, dtype), cast(key, dtype), cast(value, dtype)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.to(dtype)
    if storage.codec.is_identity(dtype) and _is_fused(kernel, attn_mask):
        return kernel(query, key, value, attn_mask)
    operands = join(
        as_it_is(_get_rng_state(query.device) if dropout_p else None),
        *(store(operand, storage) for operand in (query, key, value)),
        as_it_is(attn_mask),
    )
    if torch.compiler.is_compiling():
        rerun = operands
        output = operands.then(partial(_attend, kernel=kernel))
    else:
        tensors = (query, key, value, attn_mask)
        needs = tuple(tensor is not None and tensor.requires_grad for tensor in tensors)
        rerun = operands.rerun(partial(_run, kernel=kernel, needs=needs))
        output = rerun.then(_output)
    out: Tensor = _Attention.apply(query, key, value, attn_mask, kernel, rerun.read, *rerun.tensors)
    leave(out, output, storage)
    return out


def _is_fused(kernel: _Kernel, mask: Tensor | None) -> bool:
    """Whether torch has a kernel that keeps its operands and output alone, no probabilities."""
    learned = mask is not None and mask.requires_grad
    return not (kernel.dropout_p or kernel.enable_gqa or learned)


def _output(rerun: tuple[Tensor, Pullback]) -> Tensor:
    return rerun[0]


def _attend(operands: Sequence[Any], kernel: _Kernel) -> Tensor:
    _, query, key, value, mask = operands
    return kernel(query, key, value, mask)


def _get_rng_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _restored_rng(device: torch.device, state: Tensor | None) -> Iterator[None]:
    """Draw inside as at ``state``, and leave the generators untouched."""
    if state is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
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
