"""A step on fake tensors of a CPU, as a GPU would run it: its kernels, dtypes and rounding."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from razorlight._torch import TorchDispatchMode, run_backward, standing_for_a_gpu, tree_map
from razorlight.errors import RazorError

GRANULARITY = 512
"""CUDA's allocator rounds each tensor up to a multiple of so many bytes."""

# fmt: off
_IN_FLOAT32 = frozenset((
    "binary_cross_entropy_with_logits", "cosine_similarity", "cross_entropy", "cumprod", "cumsum",
    "exp", "expm1", "group_norm", "kl_div", "l1_loss", "layer_norm", "log", "log1p",
    "log_softmax", "mse_loss", "native_group_norm", "native_layer_norm", "nll_loss", "norm",
    "pow", "__pow__", "prod", "reciprocal", "rsqrt", "smooth_l1_loss", "softmax", "softmin",
    "softplus", "sum",
))
# fmt: on
"""What autocast on CUDA runs in float32. On a CPU it runs the most of these in narrow dtypes."""

_NORMS = frozenset(
    getattr(torch.ops.aten, name)
    for name in ("native_batch_norm", "native_layer_norm", "native_group_norm")
)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let steps on fake tensors of a CPU need the memory that they would need on a GPU.

    Raises:
        RazorError: if Triton is missing, in which the kernels are written.
    """
    if find_spec("triton") is None:
        raise RazorError(
            "device cuda: the kernels of a GPU are planned by Triton, which is missing here; "
            "pip install triton, on Linux"
        )
    with standing_for_a_gpu(), _Functions(), _WideStatistics():
        yield


def step_as_on_a_gpu(optimizer: Optimizer) -> None:
    """Let an optimizer step all parameters at once, as torch's do on a GPU unless told not to."""
    for group in optimizer.param_groups:
        if group.get("foreach", True) is None and not group.get("fused"):
            group["foreach"] = True


class _Functions(TorchFunctionMode):
    """Replaces the functions that store more, or less, on a CPU than on a GPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.backward and not any(kwargs.values()):
            with self:  # because a checkpoint runs forward again in there
                return run_backward(*args)
        if func in _REPLACED:
            return _REPLACED[func](*args, **kwargs)
        is_wide = getattr(func, "__name__", None) in _IN_FLOAT32
        if is_wide and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(_as_float32, (args, kwargs))
        return func(*args, **kwargs)


def _as_float32(leaf: Any) -> Any:
    is_narrow = isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.itemsize < 4
    return leaf.float() if is_narrow else leaf


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """With a mask of one byte an entry, where a CPU keeps one in the dtype of the input."""
    if not training or not 0 < p < 1:
        return F.dropout(input, p, training, inplace)
    return torch.native_dropout(input, p, True)[0]


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
    return F.scaled_dot_product_attention(query, key, value, attn_mask, 0.0, *more, **named)


_REPLACED: dict[Any, Callable[..., Tensor]] = {
    F.dropout: _dropout,
    F.scaled_dot_product_attention: _attention,
}


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
