"""A step on fake tensors of a CPU, as a GPU would run it: its kernels, dtypes and rounding."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.library import Library
from torch.optim import Optimizer

from razorlight._torch import TorchDispatchMode, standing_for_a_gpu, tree_map
from razorlight.errors import RazorError

aten = torch.ops.aten

GRANULARITY = 512
"""CUDA's allocator rounds each tensor up to a multiple of so many bytes."""

_IN_FLOAT32 = (
    "binary_cross_entropy_with_logits",
    "cosine_similarity",
    "cumprod",
    "cumsum",
    "exp",
    "expm1",
    "group_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "log",
    "log1p",
    "log_softmax",
    "mse_loss",
    "native_layer_norm",
    "nll_loss",
    "nll_loss2d",
    "norm",
    "pow",
    "prod",
    "reciprocal",
    "rsqrt",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "sum",
)
"""What autocast on CUDA runs in float32. On a CPU it runs most of these in narrow dtypes."""

_NORMS = (aten.native_batch_norm, aten.native_layer_norm, aten.native_group_norm)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let steps on fake tensors of a CPU need the memory that they would need on a GPU.

    Meanwhile other threads may not run on a CPU under autocast, or drop out.

    Raises:
        RazorError: if Triton is missing, in which the kernels are written.
    """
    if find_spec("triton") is None:
        raise RazorError(
            "device cuda: the kernels of a GPU are planned by Triton, which is missing here; "
            "pip install triton, on Linux"
        )
    with standing_for_a_gpu(), _gpu_operators(), _WideStatistics():
        yield


def step_as_on_a_gpu(optimizer: Optimizer) -> None:
    """Let an optimizer step all parameters at once, as torch's do on a GPU unless told not to."""
    for group in optimizer.param_groups:
        if group.get("foreach", True) is None and not group.get("fused"):
            group["foreach"] = True


@contextmanager
def _gpu_operators() -> Iterator[None]:
    """Replace the operators that store more, or less, on a CPU than on a GPU."""
    library = Library("aten", "IMPL")
    replaced: list[tuple[Any, Callable[..., Any], str]] = [
        (aten.dropout.default, _dropout, "AutogradCPU"),
        (aten.scaled_dot_product_attention.default, _attention, "AutogradCPU"),
    ]
    for packet in (getattr(aten, name) for name in _IN_FLOAT32):
        overloads = (getattr(packet, name) for name in packet.overloads() if "out" not in name)
        replaced += [(each, _in_float32(each), "AutocastCPU") for each in overloads]
    try:
        for operator, kernel, key in replaced:
            library.impl(operator, kernel, key, allow_override=True)
        yield
    finally:
        library._destroy()


def _in_float32(operator: Any) -> Callable[..., Any]:
    def cast(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(_as_float32, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            return operator(*args, **kwargs)

    return cast


def _as_float32(leaf: Any) -> Any:
    is_narrow = isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.itemsize < 4
    return leaf.float() if is_narrow else leaf


def _dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """With a mask of one byte an entry, where a CPU keeps one in the dtype of the input."""
    if not train or not 0 < p < 1:
        return aten.dropout.default.decompose(input, p, train)
    return torch.native_dropout(input, p, train)[0]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *more: Any,
    **named: Any,
) -> Tensor:
    """Without dropout, for which a CPU keeps the weights. A GPU draws the dropout again."""
    operands = (query, key, value, attn_mask)
    return aten.scaled_dot_product_attention.default.decompose(*operands, 0.0, *more, **named)


class _WideStatistics(TorchDispatchMode):
    """Gives norms statistics in float32, as on a GPU. A CPU has narrower ones."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **kwargs or {})
        if func.overloadpacket not in _NORMS:
            return output
        out, *statistics = output
        return out, *(_as_float32(one) for one in statistics)
