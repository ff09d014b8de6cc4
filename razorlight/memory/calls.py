"""Which module made which part of an autograd graph."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from razorlight._torch import is_traced

Note = Callable[[str, Any], None]


class _Call(NamedTuple):
    """One run of a module. The nodes of its graph have the numbers from ``start`` to ``end``."""

    name: str
    start: int
    end: int


class Calls:
    """Notes the runs of the modules of a network, by global hooks.

    The hooks are global, because a copy of the network would copy hooks that belong to its modules.

    Args:
        model: the network.
        note: is called with the name of a module and what goes into the module, and with the name
            and what comes out.
    """

    def __init__(self, model: nn.Module, note: Note | None = None) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._note = note
        self._running: list[tuple[str, int]] = []
        self._ended: list[_Call] = []
        self._handles: list[RemovableHandle] = []

    def start(self) -> None:
        """Begin to note runs."""
        self._handles = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after),
        ]

    def stop(self) -> None:
        """End to note runs, and remove the hooks."""
        while self._handles:
            self._handles.pop().remove()

    @property
    def active(self) -> bool:
        """Whether the hooks are in place."""
        return bool(self._handles)

    @property
    def running(self) -> str | None:
        """The name of the innermost module that runs now; None outside of the network."""
        return self._running[-1][0] if self._running else None

    def module_of(self, node: Any) -> str | None:
        """The name of the innermost module whose run made a node; None outside of the network."""
        number = node._sequence_nr()
        around = [call for call in self._ended if call.start <= number < call.end]
        # the innermost call is the shortest
        return min(around, key=lambda call: call.end - call.start).name if around else None

    def _before(self, module: nn.Module, given: Any) -> None:
        if not is_traced() and (name := self._names.get(module)) is not None:
            self._running.append((name, torch.autograd._get_sequence_nr()))
            if self._note is not None:
                self._note(name, given)

    def _after(self, module: nn.Module, given: Any, out: Any) -> None:
        if not is_traced() and (name := self._names.get(module)) is not None:
            _, start = self._running.pop()
            self._ended.append(_Call(name, start, torch.autograd._get_sequence_nr()))
            if self._note is not None:
                self._note(name, out)
