"""Blocks that run again in backward, from their stored input: activation checkpointing."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from razorlight.layers.base import RazorLayer, Role, make_class
from razorlight.records import Record
from razorlight.sharing import Storage, store
from razorlight.tensors import find_other_kind

_CONTAINERS = (nn.Sequential, nn.ModuleList)
PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd)
"""What counts as a product with a weight, of whatever subclass."""


class RazorBlock(RazorLayer):
    """A block of layers that keeps its input by a codec and runs again in backward.

    Activation checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016):
    :func:`torch.utils.checkpoint.checkpoint` runs it again, with the same random numbers and
    autocast, on the input as its record gives it. Buffers, such as a batch norm's running
    statistics, are as after one forward. Under ``torch.compile`` the input is stored in full.
    """

    role = Role.BLOCK
    functions = frozenset()
    named = frozenset()
    runs = frozenset()
    same_as = None

    def _run(
        self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not self._stores(args, kwargs):
            return forward(*args, **kwargs)
        if torch.compiler.is_compiling():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        run = partial(_run, forward, [_input(x, self.razor_storage) for x in args], kwargs)
        contexts = partial(_contexts, self)
        return checkpoint(run, use_reentrant=False, context_fn=contexts)


class _Input:
    """An argument with a gradient: itself for the forward, then what its record gives."""

    def __init__(self, x: Tensor, storage: Storage) -> None:
        self.x: Tensor | None = x
        self.record: Record = store(x, storage, overwritten=True)
        self.stride = torch.empty_like(x, device="meta").stride()

    def __call__(self) -> Tensor:
        if self.x is not None:
            x, self.x = self.x, None
            return x
        assert self.record.read is not None
        value: Tensor = self.record.read(*self.record.tensors)
        # no leaf, and its own: the block may change it in place; and as it lay in memory, the order
        # in which dropout draws
        own = value.new_empty_strided(value.shape, self.stride)
        return own.copy_(value.detach().requires_grad_())


def _input(x: Any, storage: Storage) -> Any:
    is_activation = isinstance(x, Tensor) and x.requires_grad and not find_other_kind([x])
    return _Input(x, storage) if is_activation else x


def _run(forward: Any, inputs: list[Any], kwargs: dict[str, Any]) -> Any:
    return forward(*(x() if isinstance(x, _Input) else x for x in inputs), **kwargs)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """Those of the forward and of the run in backward."""
    return nullcontext(), _BuffersKept(block)


class _BuffersKept:
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


_BLOCKS: dict[type[nn.Module], type[RazorLayer]] = {}


def block_class(dense: type[nn.Module]) -> type[RazorLayer]:
    """The class that a block of class ``dense`` is turned into."""
    if dense not in _BLOCKS:
        _BLOCKS[dense] = make_class(RazorBlock, dense, {}, block_class)
    return _BLOCKS[dense]


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
