"""Blocks that run again in backward, from their stored input: activation checkpointing."""

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

    Activation checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016):
    :func:`torch.utils.checkpoint.checkpoint` runs the block again, with the same random numbers and
    autocast, on the inputs as their records give them. Buffers, such as a batch norm's running
    statistics, and caches among the arguments are as after one forward. Python state is not: a
    block that counts its calls, or appends to a list of its own, does so twice; exclude it. Under
    ``torch.compile`` the inputs are stored in full.
    """

    known = Known(Role.BLOCK)

    @classmethod
    @override
    def class_for(cls, dense: type[nn.Module]) -> type[RazorModule]:
        return razor_class(cls, dense, cls.known)

    def _run_stored(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_traced():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        given = _Given(self, forward, (args, kwargs))
        return checkpoint(given, use_reentrant=False, context_fn=partial(_contexts, self))


class _Given:
    """What a block was called with: for the forward itself, then as it is read back."""

    def __init__(self, block: RazorModule, forward: Forward, arguments: tuple[Any, Any]) -> None:
        self.forward = forward
        self.first: tuple[Any, Any] | None = arguments
        hidden = _hidden_state(arguments)
        channels = _channels(block, 0 if hidden is None else hidden.ndim)
        store_some = partial(_input, plan=block.razor_plan, like=hidden, channels=channels)
        self.again = _Copy(store_some, _same).of(arguments)

    def __call__(self) -> Any:
        if self.first is not None:
            (args, kwargs), self.first = self.first, None
        else:
            args, kwargs = _Copy(_read, _own).of(self.again)
        return self.forward(*args, **kwargs)


class _Copy:
    """Copies arguments of a block, with copies of what may change: containers and caches.

    A cache of keys and values grows while the block runs; when it runs again, it must find the
    cache as it was.

    Args:
        of_leaf: gives the copy of a tensor, or of what :func:`_input` made of one.
        of_cached: gives the copy of a tensor in an object of another's class.
    """

    def __init__(self, of_leaf: Callable[[Any], Any], of_cached: Callable[[Any], Any]) -> None:
        self.of_leaf, self.of_cached = of_leaf, of_cached
        self.copies: dict[int, Any] = {}  # of objects, which may refer to each other

    def of(self, value: Any, cached: bool = False) -> Any:
        """The copy of ``value``, which may lie in an object of another's class."""
        again = partial(self.of, cached=cached)
        if isinstance(value, Tensor | _Input):
            return self.of_cached(value) if cached else self.of_leaf(value)
        if isinstance(value, tuple):
            parts = map(again, value)
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if type(value) is list:
            return [*map(again, value)]
        if type(value) is dict:
            return {key: again(part) for key, part in value.items()}
        if not hasattr(value, "__dict__") or callable(value):  # modules and classes among them
            return value
        if id(value) not in self.copies:
            self.copies[id(value)] = new = copy(value)
            vars(new).update({key: self.of(part, cached=True) for key, part in vars(new).items()})
        return self.copies[id(value)]


def _same(x: Any) -> Any:
    return x


def _own(x: Tensor) -> Tensor:
    """A cached tensor into which the block may write."""
    return x if x.requires_grad else x.clone()


class _Input:
    """An activation that was given to a block, as its record."""

    def __init__(self, x: Tensor, plan: LayerPlan, channels: int) -> None:
        self.record: Record = store(x, plan, overwritten=True, channels=channels)
        self.stride = torch.empty_like(x, device="meta").stride()

    def read(self) -> Tensor:
        """A tensor of its own, as it lay in memory."""
        value: Tensor = self.record.read()
        # no leaf, and its own: the block may change it in place; and as it lay in memory, the order
        # in which dropout draws
        own = value.new_empty_strided(value.shape, self.stride)
        return own.copy_(value.detach().requires_grad_())


def _read(x: Any) -> Any:
    return x.read() if isinstance(x, _Input) else x


def _hidden_state(arguments: Any) -> Tensor | None:
    """The first activation among the arguments."""
    return next((x for x in tree_leaves(arguments) if _is_activation(x)), None)


def _is_activation(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and find_other_kind([x]) is None


def _channels(block: nn.Module, ndim: int) -> int:
    """The dim of the channels: 1 where the block convolves in so many dims, else the last."""
    convolution = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}.get(ndim, ())
    return 1 if any(isinstance(layer, convolution) for layer in block.modules()) else -1


def _input(x: Any, plan: LayerPlan, like: Tensor | None, channels: int) -> Any:
    """The record of ``x`` if it is an activation such as ``like``; else ``x``.

    A bias of attention may hold the lowest of all numbers, beside which a codec would keep nothing
    else; many blocks read the same one.
    """
    if like is None or not _is_activation(x) or x.ndim != like.ndim:
        return x
    alike = x.ndim < 2 or (len(x), x.shape[channels]) == (len(like), like.shape[channels])
    return _Input(x, plan, channels) if alike else x


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """Those of the forward and of the run in backward."""
    return nullcontext(), _BuffersRestored(block)


class _BuffersRestored:
    """A context that may be entered again, by each backward through a graph that is retained."""

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
    """The names of a network's blocks.

    They are members of a Sequential or ModuleList, no such container themselves, with at least two
    products (Linear or convolution) and no block inside: those of a ViT, the residual blocks of a
    CNN, the levels of a decoder.
    """
    found: set[str] = set()
    for name, container in reversed([*model.named_modules()]):  # the innermost first
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
