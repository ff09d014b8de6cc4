"""What razorlight borrows from torch beside its public names, and the questions about compilers.

``docs/borrowed_names.md`` lists the private names, and the few that other files use.

The code of this package runs in two ways. In *eager* mode the code computes. While
:func:`torch.compile` *traces* the code, tensors have no memory and no version, and the compiler
finds common subexpressions by itself. :func:`is_traced` tells the two apart. Several functions
below answer a question whose answer differs between the two. The private names were checked with
torch 2.14.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import Variable, forward_ad
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = [
    "FakeTensor",
    "FakeTensorMode",
    "TorchDispatchMode",
    "TreeSpec",
    "is_traceable_wrapper_subclass",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
]

PRODUCTS = (nn.Linear, _ConvNd)
"""The classes of products with a weight. Each stands for its subclasses too."""
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)
"""The classes of norms. Each stands for its subclasses too."""
FACTORIES = frozenset(_device_constructors())
"""The functions that make tensors and take a device."""
CPU_KERNELS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
"""Chooses an operator's kernel for the CPU."""


def sparse_parts(tensor: Tensor) -> list[Tensor]:
    """The indices and values of a tensor of layout ``sparse_coo``, coalesced or not."""
    return [tensor._indices(), tensor._values()]


is_traced = torch.compiler.is_compiling
"""Whether torch.compile is tracing this code."""


def is_exported() -> bool:
    """Whether torch.export is tracing this code, or torch.jit.

    To a compiler of torch 2.11, ``torch.compiler.is_exporting`` is true in all that it traces.
    """
    return torch.compiler._is_exporting_flag or torch.jit.is_tracing()


@cache
def has_triton() -> bool:
    """Whether Triton can compile kernels for a device of this machine."""
    from torch.utils._triton import has_triton  # imported here, because few machines need it

    return has_triton()


def is_dtensor(x: Tensor) -> bool:
    """Whether ``x`` is a DTensor. The class is compared by name: its module is slow to import."""
    return type(x).__name__ == "DTensor"


def is_fake(x: Tensor) -> bool:
    """Whether ``x`` has a shape and no memory, so that chunks of it are all alike."""
    return isinstance(x, FakeTensor)


@contextmanager
def standing_for(count: int) -> Iterator[None]:
    """What runs in the context on fake tensors stands for ``count`` runs that are alike."""
    global _stands_for
    _stands_for *= count
    try:
        yield
    finally:
        _stands_for //= count


def stands_for() -> int:
    """How many runs the running one stands for."""
    return _stands_for


_stands_for = 1


@contextmanager
def standing_for_a_gpu() -> Iterator[None]:
    """In the context a CPU stands for a GPU. All tensors there have to be fake."""
    global _has_stand_in
    before, _has_stand_in = _has_stand_in, True
    try:
        yield
    finally:
        _has_stand_in = before


_has_stand_in = False


def is_cpu(device: torch.device) -> bool:
    """Whether ``device`` is a CPU, and stands for nothing else."""
    return device.type == "cpu" and not _has_stand_in


def is_gpu(device: torch.device) -> bool:
    """Whether ``device`` is a CUDA device, or stands for one."""
    return device.type == "cuda" or (device.type == "cpu" and _has_stand_in)


def is_sharded(module_class: type) -> bool:
    """Whether FSDP made this class from the class of a module, to shard the module's weights."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # without it, nobody has sharded anything
    return fsdp is not None and issubclass(module_class, fsdp.FSDPModule)


def current_node() -> Any:
    """The node of the graph whose backward runs in this thread; None outside of backward."""
    return torch._C._current_autograd_node()


def is_leaf(x: Tensor) -> bool:
    """Whether ``x`` is a leaf of the graph, such as the batch. False if traced: it is unknown."""
    return not is_traced() and x.is_leaf


def has_version(x: Tensor) -> bool:
    """Whether torch counts the in-place changes of ``x``. In inference mode torch does not."""
    return is_traced() or not x.is_inference()


def versions_of(tensors: Sequence[Tensor]) -> int:
    """A number that grows with every in-place change of any of ``tensors``."""
    try:
        return sum([x._version for x in tensors])
    except RuntimeError:  # a tensor that was made in inference mode has no version
        return sum([x._version for x in tensors if has_version(x)])


def is_unchanged(then: int, now: int) -> bool:
    """Whether two results of :func:`versions_of` are equal.

    While a compiler traces, the comparison becomes a check in the compiled program.
    """
    if is_traced():

        def message() -> str:  # here, and as it is: compilers of torch 2.11 take no other function
            return (
                "razorlight: a tensor was changed in place between two layers that share its "
                "record; torch.compile cannot follow that: use an operation that is not in place "
                "there"
            )

        torch._check(then == now, message)
        return True
    return then == now


def is_any_freed(tensors: Sequence[Tensor]) -> bool:
    """Whether FSDP has sharded one of ``tensors`` again, and so freed its memory until backward."""
    if is_traced():
        return False
    return any(not x.untyped_storage().nbytes() and x.numel() > 0 for x in tensors)


def is_small_part(x: Tensor) -> bool:
    """Whether ``x`` is a view that keeps much more memory alive than it needs itself.

    An example is one token of each sample.
    """
    return not is_traced() and x.nbytes * 4 <= x.untyped_storage().nbytes()


def unshared(part: Tensor, x: Tensor) -> Tensor:
    """``part``, or a copy of ``part`` if it begins where ``x`` begins in memory."""
    if is_traced() or part.untyped_storage() is not x.untyped_storage():
        return part
    return part.clone() if part.storage_offset() == x.storage_offset() else part


def is_gradient_observed(x: Tensor) -> bool:
    """Whether a hook or ``retain_grad`` asks for the gradient of ``x`` itself."""
    return not is_traced() and bool(x._backward_hooks or x.retains_grad)


def as_no_view(out: Tensor) -> Tensor:
    """``out`` as a tensor that is no view, so that the caller may change it in place.

    torch's kernels return views for some shapes, such as a Linear for ``(batch, tokens, in)``. If
    an autograd Function returns a view, torch forbids in-place changes of that view.
    """
    if is_traced() or out._is_view():
        return torch.ops.aten._unsafe_view(out, out.shape)
    return out


def as_attachable(out: Tensor) -> Tensor:
    """``out``, one of several outputs of a call, as a tensor to which a record can be attached.

    A compiler does not track the attributes of such an output, but tracks those of a view.
    """
    return out.view_as(out) if is_traced() else out


def in_kernel_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight of a Linear in ``dtype``, which needs a gradient if ``weight`` does.

    For tokens that are not contiguous, torch chooses the kernel by whether the weight needs a
    gradient.
    """
    if weight.dtype == dtype or is_traced():
        return weight
    return weight.to(dtype).requires_grad_(weight.requires_grad)


Pull = Callable[[Tensor], Sequence[Tensor | None]]
"""Turns the gradient of an output into those of the inputs."""


def vjp(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, Pull]:
    """Compute as :func:`torch.func.vjp`, also where hooks on saved tensors are active.

    ``torch.func.vjp`` itself refuses to work there.

    Args:
        function: the function to differentiate.
        inputs: the arguments of ``function``; they are detached here.

    Returns:
        The output, and a function that turns the gradient of the output into those of ``inputs``.
    """
    if is_traced():
        return torch.func.vjp(function, *inputs)  # type: ignore[return-value]
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    with torch.enable_grad():
        out = function(*leaves)
    return out.detach(), lambda grad: torch.autograd.grad(out, leaves, grad)


def when_backward_ends(callback: Callable[[], None]) -> None:
    """Call ``callback`` at the end of the current backward pass."""
    Variable._execution_engine.queue_callback(callback)


def is_transformed() -> bool:
    """Whether torch.func (grad, vmap, jvp) or forward-mode differentiation is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def batch_norm_with_statistics(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: tuple[Tensor | None, Tensor | None],
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`torch.nn.functional.batch_norm` in training.

    Returns:
        The output, the mean and 1/std of the batch.
    """
    cudnn = torch.backends.cudnn.enabled
    out, mean, rstd, *_ = torch._batch_norm_impl_index(
        x, weight, bias, *running, True, momentum, eps, cudnn
    )
    return out, mean, rstd


def check_batch_size(shape: Sequence[int]) -> None:
    """Raise torch's own ValueError if batch statistics would come from a single value."""
    F._verify_batch_size([*shape])  # type: ignore[attr-defined]


def check_spatial_size(shape: Sequence[int]) -> None:
    """Raise torch's own ValueError if the statistics of an instance would come from one value."""
    F._verify_spatial_size([*shape])  # type: ignore[attr-defined]


def without_torch_function() -> Any:
    """A context in which calls of torch's functions are not intercepted."""
    return torch._C.DisableTorchFunction()
