"""The instant of the most memory: what runs then, and all that is alive, by kind."""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from sys import maxsize
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks

from razorlight._torch import current_node, tree_leaves
from razorlight.errors import RazorError
from razorlight.layers import RazorModule
from razorlight.memory.calls import Calls
from razorlight.memory.meter import MIB, StorageMeter, model_tensors, storages_of
from razorlight.patterns import without_numbers

KINDS = (
    "parameters",
    "buffers",
    "optimizer's state",
    "batch",
    "gradients",
    "records",
    "dense values",
    "temporaries",
)
"""The kinds of memory. Records are what converted layers store, and dense values what all others
store; both wait for backward. Temporaries are the rest, such as what backward computes again."""

FORWARD, BACKWARD, AGAIN, STEP = "forward", "backward", "second forward", "optimizer's step"
"""What runs. A second forward is that of a checkpoint, within backward."""

_SHOWN = 5  # layers


@dataclass(frozen=True)
class Peak:
    """The instant of the most memory in a training step.

    Attributes:
        nbytes: the bytes that are alive.
        instant: words that say what runs: forward or backward, the layer and torch's operator.
        kinds: the bytes of each of :data:`KINDS`. Their sum is ``nbytes``.
        stored: the bytes that are alive between forward and backward beside parameters, buffers,
            batch and the optimizer's state.
        layers: the bytes that each layer stores between forward and backward, largest first. The
            numbers of equal blocks are left out of the names.
    """

    nbytes: int
    instant: str
    kinds: dict[str, int]
    stored: int
    layers: dict[str, int]

    def __str__(self) -> str:
        """A table of the kinds, and of the layers that store most."""
        lines = [f"peak {self.nbytes / MIB:.2f} MiB, {self.instant}"]
        lines += [_line(kind, size) for kind, size in self.kinds.items() if size]
        lines.append(f"stored {self.stored / MIB:.2f} MiB between forward and backward")
        lines += [_line(name, size) for name, size in [*self.layers.items()][:_SHOWN]]
        if rest := sum([*self.layers.values()][_SHOWN:]):
            lines.append(_line(f"{len(self.layers) - _SHOWN} more", rest))
        return "\n".join(lines)


def _line(name: str, size: int) -> str:
    return f"{size / MIB:10.2f}  {name}"


class Look(StorageMeter):
    """Looks around at the first instant when ``awaited`` bytes are alive.

    The meter follows one step, and has to be told when forward has ended (:meth:`note_stored`) and
    when the optimizer steps (:meth:`stepping`).

    Args:
        model: the model that runs.
        inputs: the batch, in any nesting.
        state: the optimizer's state, in any nesting.
        awaited: bytes.
        granularity: as of :class:`StorageMeter`.

    Attributes:
        stored: bytes alive between forward and backward beside all that is given.
        stored_by: by layer, what it stores then, in bytes. None is outside of the network.
    """

    def __init__(
        self, model: nn.Module, inputs: object, state: object, awaited: int, granularity: int = 1
    ) -> None:
        super().__init__(granularity)
        self._model, self._inputs, self._state, self._awaited = model, inputs, state, awaited
        self._modules = dict(model.named_modules())
        self._calls = Calls(model)
        self._saved: dict[int, tuple[weakref.ref[UntypedStorage], str | None]] = {}
        self._operator = ""
        self._in_backward_of: str | None = None
        self._is_stepping = False
        self._found: tuple[int, str, dict[str, int]] | None = None
        self.stored = 0
        self.stored_by: dict[str | None, int] = defaultdict(int)
        self.track([*model.parameters()], [*model.buffers()], inputs, state)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note which layers run, and what they store for backward."""
        self._calls.start()
        try:
            # detached, because an output that holds itself would never be freed
            with saved_tensors_hooks(self._note_saved, lambda tensor: tensor), self:
                yield
        finally:
            self._calls.stop()

    def note_stored(self) -> None:
        """Note what is stored, between forward and backward."""
        given = model_tensors(self._model), self._inputs, self._state
        self.stored = self.live - self.bytes_of(given)
        known = self._known_kinds()
        for key, (reference, size) in self._known.items():
            if key not in known and self._is_saved(key, reference()):
                self.stored_by[self._saved[key][1]] += size

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """The optimizer steps within this context."""
        self._is_stepping = True
        try:
            yield
        finally:
            self._is_stepping = False

    def found(self) -> Peak | None:
        """The peak; None if memory has not grown to the awaited bytes."""
        if self._found is None:
            return None
        layers: dict[str, int] = defaultdict(int)
        for layer, size in self.stored_by.items():
            layers[_shown_name(layer)] += size
        in_order = dict(sorted(layers.items(), key=lambda item: -item[1]))
        return Peak(*self._found, self.stored, in_order)

    def __torch_dispatch__(self, func: Any, *more: Any) -> Any:
        self._operator = str(func.overloadpacket)
        node = current_node()
        if node is not None and (layer := self._calls.module_of(node)) is not None:
            self._in_backward_of = layer  # nodes of a graph within backward belong to no layer
        return super().__torch_dispatch__(func, *more)

    def _note_saved(self, tensor: Tensor) -> Tensor:
        if current_node() is None:  # what backward computes again is a temporary
            for storage in storages_of(tensor):
                if not self._is_saved(id(storage), storage):  # a later storage may get the id
                    self._saved[id(storage)] = weakref.ref(storage), self._calls.running
        return tensor.detach()

    def _is_saved(self, key: int, storage: UntypedStorage | None) -> bool:
        return key in self._saved and self._saved[key][0]() is storage

    def _note(self, storage: UntypedStorage) -> None:
        super()._note(storage)
        if self._found is None and self.live >= self._awaited:
            self._found = self.live, self._instant(), self._kinds()

    def _kinds(self) -> dict[str, int]:
        kinds = dict.fromkeys(KINDS, 0)
        known = self._known_kinds()
        for key, (reference, size) in self._known.items():
            kind = known.get(key, "temporaries")
            if kind == "temporaries" and self._is_saved(key, reference()):
                kind = "records" if self._is_converted(self._saved[key][1]) else "dense values"
            kinds[kind] += size
        return kinds

    def _known_kinds(self) -> dict[int, str]:
        """By id of a storage: the kind of what exists before the step, and of gradients."""
        parameters = [*self._model.parameters()]
        trees: dict[str, Any] = {
            "gradients": [p.grad for p in parameters],
            "batch": self._inputs,
            "optimizer's state": self._state,
            "buffers": [*self._model.buffers()],
            "parameters": parameters,
        }
        return {
            id(storage): kind
            for kind, tree in trees.items()
            for leaf in tree_leaves(tree)
            if isinstance(leaf, Tensor)
            for storage in storages_of(leaf)
        }

    def _is_converted(self, layer: str | None) -> bool:
        return layer is not None and isinstance(self._modules[layer], RazorModule)

    def _place(self) -> tuple[str, str | None]:
        """What runs, and the layer of which it is; None outside of the network."""
        running = self._calls.running
        if self._is_stepping:
            return STEP, None
        if current_node() is None:
            return FORWARD, running
        return (BACKWARD, self._in_backward_of) if running is None else (AGAIN, running)

    def _instant(self) -> str:
        what, where = self._place()
        place = "outside of the network" if where is None else f"of {where or 'the network'}"
        return f"in the {what}{'' if what == STEP else f' {place}'} ({self._operator})"


def look_twice(
    model: nn.Module,
    inputs: object,
    state: object,
    run: Callable[[Look], None],
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    granularity: int = 1,
) -> Peak:
    """Run a step twice: the first run finds the peak, and the second one looks around there.

    Args:
        model: the model that runs.
        inputs: the batch, in any nesting.
        state: the optimizer's state, in any nesting.
        run: runs the step, and tells the meter where it is. Both runs must do the same.
        around: makes a context for each run, in which nothing is counted.
        granularity: as of :class:`StorageMeter`.

    Raises:
        RazorError: if the second run needs less memory than the first.
    """
    awaited = maxsize
    for _ in range(3):  # the first run may also make what later runs find
        with around():
            look = Look(model, inputs, state, awaited, granularity)
            with look.watching():  # hooks on what autograd saves change the peak by some bytes
                run(look)
        if found := look.found():
            return found
        awaited = look.peak
    raise RazorError("each run of step() needs less memory than the one before; all must do alike")


def _shown_name(layer: str | None) -> str:
    if layer is None:
        return "outside of the network"
    if layer.replace(".", "").isdigit():  # parts of a Sequential, which need not be equal
        return layer
    return without_numbers(layer) or "the network itself"
