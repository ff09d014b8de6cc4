"""What razorlight borrows from torch beside its public functions: all of it, in one place.

There are two ways in which the code of this package runs. In *eager* mode it computes. While
:func:`torch.compile` *traces* it, tensors have no memory and no version, and the compiler finds
common subexpressions by itself. :func:`is_traced` tells the two apart; the functions below answer
the questions whose answer differs. Private names of torch were checked with torch 2.7 and 2.14.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Variable, forward_ad
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

__all__ = [
    "TorchDispatchMode",
    "TreeSpec",
    "is_traceable_wrapper_subclass",
    "tree_flatten",
    "tree_leaves",
    "tree_unflatten",
]

PRODUCTS = (nn.Linear, _ConvNd)
"""The classes of products with a weight, of whatever subclass."""
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)
"""The classes of norms, of whatever subclass."""
CPU_KERNELS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
"""Chooses an operator's kernel for the CPU."""


def sparse_parts(tensor: Tensor) -> list[Tensor]:
    """The indices and values of a tensor of layout ``sparse_coo``, coalesced or not."""
    return [tensor._indices(), tensor._values()]


def is_traced() -> bool:
    """Whether torch.compile is tracing this code."""
    return torch.compiler.is_compiling()


_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant_if_traced(function: _Function) -> _Function:
    """Make a compiler take what ``function`` returns as a constant.

    As ``torch.compiler.assume_constant_result``, which would import the whole compiler for that.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def is_dtensor(x: Tensor) -> bool:
    """Whether ``x`` is a DTensor, whose own module takes a second to import."""
    return type(x).__name__ == "DTensor"


def is_sharded(module_class: type) -> bool:
    """Whether a class is one that FSDP made of a module's class, to shard its weights."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # else nobody has sharded anything
    return fsdp is not None and issubclass(module_class, fsdp.FSDPModule)


def is_leaf(x: Tensor) -> bool:
    """Whether ``x`` is a leaf of the graph, such as the batch; unknown, and so False, if traced."""
    return not is_traced() and x.is_leaf


def has_version(x: Tensor) -> bool:
    """Whether torch counts the changes in place of ``x``: it does not in inference mode."""
    return is_traced() or not x.is_inference()


def versions_of(tensors: Sequence[Tensor]) -> int:
    """A number that grows with every change in place of any of ``tensors``."""
    return sum(x._version for x in tensors if has_version(x))


def is_unchanged(then: int, now: int) -> bool:
    """Whether two results of :func:`versions_of` are equal.

    While a compiler traces, the comparison becomes a check inside of the compiled program.
    """
    if is_traced():
        torch._check(then == now, _changed_in_place)
        return True
    return then == now


def _changed_in_place() -> str:
    return (
        "razorlight: a tensor was changed in place between two layers that share its record; "
        "torch.compile cannot follow that: use an operation that is not in place there"
    )


def is_freed(x: Tensor) -> bool:
    """Whether FSDP has sharded ``x`` again, and freed its memory until backward."""
    return not is_traced() and x.numel() > 0 and not x.untyped_storage().nbytes()


def is_small_part(x: Tensor) -> bool:
    """Whether ``x`` would keep a much larger tensor alive, as one token of each sample does."""
    return not is_traced() and x.nbytes * 4 <= x.untyped_storage().nbytes()


def unshared(part: Tensor, x: Tensor) -> Tensor:
    """``part``, or a copy if it begins where ``x`` begins in memory."""
    if is_traced() or part.data_ptr() != x.data_ptr():
        return part
    return part.clone()


def is_gradient_observed(x: Tensor) -> bool:
    """Whether somebody waits for the gradient of ``x`` itself, by a hook or ``retain_grad``."""
    return not is_traced() and bool(x._backward_hooks or x.retains_grad)


def as_no_view(out: Tensor) -> Tensor:
    """``out`` of an autograd Function such that it may be changed in place, as no view of it may.

    torch's kernels make views in some shapes, such as a Linear of ``(batch, tokens, in)``.
    """
    if is_traced() or out._is_view():
        return torch.ops.aten._unsafe_view(out, out.shape)
    return out


def as_attachable(out: Tensor) -> Tensor:
    """``out``, one of several outputs of a call, as a tensor to which a record can be attached.

    A compiler tracks no attributes of such an output, but those of a view of it.
    """
    return out.view_as(out) if is_traced() else out


def in_kernel_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight of a Linear in ``dtype``, still as one that needs a gradient.

    By that torch chooses the kernel for tokens that do not lie one behind the other.
    """
    if weight.dtype == dtype or is_traced():
        return weight
    return weight.to(dtype).requires_grad_(weight.requires_grad)


def vjp(
    function: Callable[..., Tensor], *inputs: Tensor
) -> tuple[Tensor, Callable[[Tensor], Sequence[Tensor | None]]]:
    """:func:`torch.func.vjp`, which refuses to work where hooks on saved tensors are active.

    Args:
        function: of ``inputs``.
        inputs: at which to differentiate; they are detached here.

    Returns:
        The output, and the function that takes its gradient to those of ``inputs``.
    """
    if is_traced():
        return torch.func.vjp(function, *inputs)  # type: ignore[return-value]
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    with torch.enable_grad():
        out = function(*leaves)
    return out.detach(), lambda grad: torch.autograd.grad(out, leaves, grad)


def when_backward_ends(callback: Callable[[], None]) -> None:
    """Call ``callback`` at the end of the backward pass that runs now."""
    Variable._execution_engine.queue_callback(callback)


def is_transformed() -> bool:
    """Whether torch.func (grad, vmap, jvp) or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def batch_norm_with_statistics(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: tuple[Tensor | None, Tensor | None],
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`torch.nn.functional.batch_norm` calls in training: output, mean and 1/std."""
    cudnn = torch.backends.cudnn.enabled
    out, mean, rstd, *_ = torch._batch_norm_impl_index(
        x, weight, bias, *running, True, momentum, eps, cudnn
    )
    return out, mean, rstd


def check_batch_size(shape: Sequence[int]) -> None:
    """Raise torch's own ValueError if batch statistics would be of a single value."""
    F._verify_batch_size([*shape])  # type: ignore[attr-defined]


def check_spatial_size(shape: Sequence[int]) -> None:
    """Raise torch's own ValueError if an instance norm would be of a single value."""
    F._verify_spatial_size([*shape])  # type: ignore[attr-defined]


def without_torch_function() -> Any:
    """A context in which functions that are called are not intercepted again."""
    return torch._C.DisableTorchFunction()
