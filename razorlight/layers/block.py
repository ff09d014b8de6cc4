"""Blocks that run again in backward from their stored input: activation checkpointing."""

from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from razorlight._torch import PRODUCTS, is_traced, tree_leaves
from razorlight.layers.layer import Forward, RazorModule, razor_class
from razorlight.layers.registry import Known
from razorlight.planning import LayerPlan, Role
from razorlight.records import Record, store
from razorlight.tensors import find_other_kind

_CONTAINERS = (nn.Sequential, nn.ModuleList)


class RazorBlock(RazorModule):
    """A block of layers that stores its input by a codec and runs again in backward.

    This is activation checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost",
    2016). :func:`torch.utils.checkpoint.checkpoint` runs the block again, with the same random
    numbers and autocast, on the inputs that are read from their records. Buffers, such as the
    running statistics of a batch norm, and caches among the arguments are then as after one
    forward. Other Python state is not: a block that counts its calls, or appends to a list of its
    own, does so twice. Exclude such a block. Under ``torch.compile`` the inputs are stored in full.
    """

    known = Known(Role.BLOCK)

    @classmethod
    @override
    def class_for(cls, dense: type[nn.Module]) -> type[RazorModule]:
        return razor_class(cls, dense, cls.known)

    def _run_stored(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_traced():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        call = _BlockCall(self, forward, (args, kwargs))
        return checkpoint(call, use_reentrant=False, context_fn=partial(_contexts, self))


class _BlockCall:
    """A call of a block: first with its arguments, later with those that its records read."""

    def __init__(self, block: RazorModule, forward: Forward, arguments: tuple[Any, Any]) -> None:
        self.forward = forward
        self.first: tuple[Any, Any] | None = arguments
        hidden = _hidden_state(arguments)
        channels = _channels(block, 0 if hidden is None else hidden.ndim)
        plan = block.razor_plan
        store_one = partial(_store_activation, plan=plan, like=hidden, channels=channels)
        self.stored = _ArgumentCopier(store_one, _unchanged).copy(arguments)

    def __call__(self) -> Any:
        if self.first is not None:
            (args, kwargs), self.first = self.first, None
        else:
            args, kwargs = _ArgumentCopier(_read, _writable).copy(self.stored)
        return self.forward(*args, **kwargs)


class _ArgumentCopier:
    """Copies the arguments of a block, with everything that the block may change.

    A cache of keys and values grows while the block runs. When the block runs again, it must find
    the cache as it was before.

    Args:
        copy_tensor: copies a tensor, or a :class:`_StoredInput`, among the arguments.
        copy_cached: copies a tensor that is an attribute of an object, such as a cache.
    """

    def __init__(
        self, copy_tensor: Callable[[Any], Any], copy_cached: Callable[[Any], Any]
    ) -> None:
        self.copy_tensor, self.copy_cached = copy_tensor, copy_cached
        self.copies: dict[int, Any] = {}  # by the id of the object: objects may refer to each other

    def copy(self, value: Any, cached: bool = False) -> Any:
        """Copy ``value``, a part of the arguments.

        Args:
            value: any object.
            cached: Whether the value belongs to an object such as a cache.
        """
        copy_part = partial(self.copy, cached=cached)
        if isinstance(value, Tensor | _StoredInput):
            return self.copy_cached(value) if cached else self.copy_tensor(value)
        if isinstance(value, tuple):
            parts = map(copy_part, value)
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if type(value) is list:
            return [*map(copy_part, value)]
        if type(value) is dict:
            return {key: copy_part(part) for key, part in value.items()}
        if not hasattr(value, "__dict__") or callable(value):  # such as a module or a class
            return value
        if id(value) not in self.copies:
            self.copies[id(value)] = new = copy(value)
            vars(new).update({key: self.copy(part, cached=True) for key, part in vars(new).items()})
        return self.copies[id(value)]


def _unchanged(x: Any) -> Any:
    return x


def _writable(x: Tensor) -> Tensor:
    """A cached tensor into which the block may write."""
    return x if x.requires_grad else x.clone()


class _StoredInput:
    """The record of an activation that was given to a block."""

    def __init__(self, x: Tensor, plan: LayerPlan, channels: int) -> None:
        self.record: Record = store(x, plan, overwritten=True, channels=channels)
        self.stride = torch.empty_like(x, device="meta").stride()

    def read(self) -> Tensor:
        """Read the activation into a new tensor with the strides of the original."""
        value: Tensor = self.record.read()
        # The tensor is new and no leaf, because the block may change it in place. It has the
        # original's strides, because dropout draws in the order of memory.
        new = value.new_empty_strided(value.shape, self.stride)
        return new.copy_(value.detach().requires_grad_())


def _read(x: Any) -> Any:
    return x.read() if isinstance(x, _StoredInput) else x


def _hidden_state(arguments: Any) -> Tensor | None:
    """The first activation among the arguments."""
    return next((x for x in tree_leaves(arguments) if _is_activation(x)), None)


def _is_activation(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and find_other_kind([x]) is None


def _channels(block: nn.Module, ndim: int) -> int:
    """The dim of the channels: 1 if the block has a convolution of ``ndim`` dims, else the last."""
    convolution = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}.get(ndim, ())
    return 1 if any(isinstance(layer, convolution) for layer in block.modules()) else -1


def _store_activation(x: Any, plan: LayerPlan, like: Tensor | None, channels: int) -> Any:
    """Store ``x`` if it is an activation with the batch size and channels of ``like``.

    Other tensors stay as they are. A bias of attention, for example, may hold the lowest number of
    its dtype, and a codec would then lose all other entries. Many blocks read the same bias anyway.
    """
    if like is None or not _is_activation(x) or x.ndim != like.ndim:
        return x
    alike = x.ndim < 2 or (len(x), x.shape[channels]) == (len(like), like.shape[channels])
    return _StoredInput(x, plan, channels) if alike else x


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """The contexts of the forward and of the run in backward."""
    return nullcontext(), _BuffersRestored(block)


class _BuffersRestored:
    """A context that restores the buffers of a block. Each backward of a graph may enter it."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __enter__(self) -> None:
        self.before = [(buffer, buffer.clone()) for buffer in self.block.buffers()]

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for buffer, value in self.before:
            buffer.copy_(value)
        del self.before


def find_blocks(model: nn.Module) -> set[str]:
    """Find the names of a network's blocks.

    A block is a member of a Sequential or ModuleList, and is no such container itself. It has at
    least two products (Linear or convolution) and no block inside. Examples are the blocks of a
    ViT, the residual blocks of a CNN, and the levels of a decoder.
    """
    found: set[str] = set()
    for name, container in reversed([*model.named_modules()]):  # innermost containers first
        for child, member in container.named_children():
            path = f"{name}.{child}".lstrip(".")
            if (
                isinstance(container, _CONTAINERS)
                and not isinstance(member, _CONTAINERS)
                and sum(isinstance(layer, PRODUCTS) for layer in member.modules()) > 1
                and not any(block.startswith(f"{path}.") for block in found)
            ):
                found.add(path)
    return found
