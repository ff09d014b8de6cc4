"""Softmax, whose output is stored, and attention, whose operands are stored."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight._torch import Pull, is_fake, is_traced, vjp
from razorlight.codecs import Codec, encode
from razorlight.functional.autocast import cast, matmul_dtype, without_autocast
from razorlight.functional.operation import (
    Gradients,
    Needs,
    Operation,
    Result,
    Saved,
    run,
    run_with_by_products,
)
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import (
    NOTHING,
    Record,
    as_it_is,
    as_stored_layout,
    attach_encoded,
    attach_record,
    encoded_record,
    join,
    store,
)


def softmax(
    plan: LayerPlan,
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """:func:`torch.softmax` along ``dim``; the *output* is stored.

    If P~ is the stored output, the gradient is ``P~ * (g - sum(g * P~))``. In an attention, the
    product with the values reads the same record.
    """
    if dim is None:
        return F.softmax(input, dim, dtype=dtype)
    codec = plan.codec.of_values()
    operation = _Softmax(dim, dtype, input.dtype, codec)
    out, encoded = run_with_by_products(operation, NOTHING, input)
    attach_encoded(out, encoded_record(encoded, out, codec, out.dtype), plan)
    return out


@dataclass(eq=False)
class _Softmax(Operation):
    dim: int
    dtype: torch.dtype | None
    input_dtype: torch.dtype
    codec: Codec

    def forward(self, needs: Needs, x: Tensor) -> Result:
        out = F.softmax(x, self.dim, dtype=self.dtype)
        return Result(out, by_products=encode(self.codec, as_stored_layout(out.detach())))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        # torch's output is contiguous, whatever the memory format of its gradient
        like = torch.empty_like(grad, memory_format=torch.contiguous_format)
        out = encoded_record(saved, like, self.codec, grad.dtype).read()  # type: ignore[arg-type]
        return (torch.ops.aten._softmax_backward_data(grad, out, self.dim, self.input_dtype),)


@dataclass(eq=False)
class _Kernel:
    """:func:`torch.nn.functional.scaled_dot_product_attention` with fixed options."""

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


def scaled_dot_product_attention(
    plan: LayerPlan,
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

    The fused kernels never form the matrix of probabilities, so there is no such matrix to store.
    Backward runs the same kernel on the stored operands, with the same dropout, and differentiates
    it. The projection that follows reads its input from that run too. Two cases are left to torch:
    a fused kernel with the identity as its codec, because the kernel keeps its operands by itself,
    and an attention with dropout under ``torch.compile``.

    Args:
        plan: the plan by which query, key and value are stored.
        query: ``(..., heads, n, d)``.
        key: ``(..., heads, m, d)``.
        value: ``(..., heads, m, e)``.
        attn_mask: broadcastable to ``(..., heads, n, m)``. It is stored unchanged, and its gradient
            is computed too.
        dropout_p: probability that a probability is dropped. The state of the random number
            generator is stored in place of a mask.
        is_causal: Whether each query sees only the keys up to its own place, as in torch.
        scale: factor of the scores; ``1 / sqrt(d)`` by default.
        enable_gqa: Whether there may be fewer heads of keys than of queries.
    """
    kernel = _Kernel(dropout_p, is_causal, scale, enable_gqa)
    if dropout_p and is_traced():
        return kernel(query, key, value, attn_mask)
    dtype = matmul_dtype(query)
    query, key, value = cast(query, dtype), cast(key, dtype), cast(value, dtype)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.to(dtype)
    if plan.codec.is_identity(dtype) and _is_fused(kernel, attn_mask):
        return kernel(query, key, value, attn_mask)
    operands = join(
        as_it_is(_get_rng_state(query.device) if dropout_p else None),
        *(store(operand, plan) for operand in (query, key, value)),
        as_it_is(attn_mask),
    )
    if is_traced():  # a compiler cannot trace a backward that differentiates
        record, output = operands, operands.then(partial(_attend, kernel=kernel))
    else:
        inputs = (query, key, value, attn_mask)
        needs = tuple(x is not None and x.requires_grad for x in inputs)
        record = operands.recomputed(partial(_differentiate, kernel=kernel, needs=needs))
        output = record.then(_output)
    out = run(_Attention(kernel), record, query, key, value, attn_mask)
    attach_record(out, output, plan)
    return out


def _is_fused(kernel: _Kernel, mask: Tensor | None) -> bool:
    """Whether torch has a kernel that keeps only its operands and output, and no probabilities."""
    is_learned = mask is not None and mask.requires_grad
    return not (kernel.dropout_p or kernel.enable_gqa or is_learned)


@dataclass(eq=False)
class _Attention(Operation):
    kernel: _Kernel

    def forward(
        self, needs: Needs, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> Result:
        return Result(self.kernel(query, key, value, mask))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        if not is_traced():
            (_, pull), _ = record.take()
            return pull(grad)
        _, *operands = record.read()
        kernel = self.kernel
        options = (kernel.is_causal, kernel.scale, kernel.enable_gqa, needs)
        return _spread(_gradients_operator(grad, *operands, *options), needs)


def _attend(operands: Sequence[Any], kernel: _Kernel) -> Tensor:
    _, query, key, value, mask = operands
    return kernel(query, key, value, mask)


def _differentiate(
    operands: Sequence[Any],
    kernel: _Kernel,
    needs: Needs,
    vjp: Callable[..., Any] = vjp,
) -> tuple[Tensor, Pull]:
    """Compute attention from its stored operands, such that it can be differentiated.

    Args:
        operands: the state of the random number generator before dropout drew, or None; then query,
            key, value and mask.
        kernel: computes the attention.
        needs: for each operand, whether it needs a gradient.
        vjp: a function such as :func:`torch.func.vjp`.

    Returns:
        The output, and a function that turns its gradient into those of the operands.
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
    with without_autocast(device), _restored_rng(device, rng_state):
        out, pull = vjp(attend, *wanted)

    return out, lambda grad: _spread(pull(grad), needs)


def _output(differentiated: tuple[Tensor, Pull]) -> Tensor:
    return differentiated[0]


def _spread(gradients: Iterable[Tensor], needs: Needs) -> list[Tensor | None]:
    """``gradients`` at the places that need one, None at the others."""
    following = iter(gradients)
    return [next(following) if needed else None for needed in needs]


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
    # Inside an operator torch records no graph, so torch.func.vjp differentiates here.
    _, pull = _differentiate([None, query, key, value, mask], kernel, needs, torch.func.vjp)
    return [gradient.contiguous() for gradient in pull(grad) if gradient is not None]


def _like_operands(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *options: Any
) -> list[Tensor]:
    operands = (query, key, value, mask)
    return [
        operand.new_empty(operand.shape)
        for operand, needed in zip(operands, options[-1], strict=True)
        if needed and operand is not None
    ]


_gradients_operator = torch.library.custom_op(
    "razorlight::attention_gradients", _gradients_by_operator, mutates_args=()
)
_gradients_operator.register_fake(_like_operands)


def _get_rng_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _restored_rng(device: torch.device, state: Tensor | None) -> AbstractContextManager[None]:
    """Draw random numbers from ``state`` inside, and leave the generators as they were."""
    return nullcontext() if state is None or is_fake(state) else _forked_rng(device, state)


@contextmanager
def _forked_rng(device: torch.device, state: Tensor) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        yield


# An active TorchFunctionMode intercepts F.multi_head_attention_forward as a whole, and would not
# see the calls inside it (linear, attention). This is the same function without its first step,
# which asks for such a mode.
multi_head_attention_forward = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)
