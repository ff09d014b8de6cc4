"""What sets the peak: the instant of the most memory, and all that is alive then, by kind."""

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from razorlight._torch import current_node, tree_leaves
from razorlight.errors import RazorError
from razorlight.layers import RazorModule
from razorlight.memory.calls import Calls, without_numbers
from razorlight.memory.meter import MIB, StorageMeter, storages_of
from razorlight.memory.step import left_as_found, loss_of

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

_SHOWN = 5  # layers


@dataclass(frozen=True)
class Peak:
    """The instant of the most memory in a training step.

    Attributes:
        nbytes: the bytes that are alive.
        instant: words that say what runs: forward or backward, the layer and torch's operator.
        kinds: the bytes of each of :data:`KINDS`. Their sum is ``nbytes``.
        layers: the bytes that each layer has stored for backward, largest first. The numbers of
            equal blocks are left out of the names.
    """

    nbytes: int
    instant: str
    kinds: dict[str, int]
    layers: dict[str, int]

    def __str__(self) -> str:
        """A table of the kinds, and of the layers that store most."""
        lines = [f"peak {self.nbytes / MIB:.2f} MiB, {self.instant}"]
        lines += [_line(kind, size) for kind, size in self.kinds.items() if size]
        layers = [*self.layers.items()][:_SHOWN]
        if layers:
            lines += ["stored by", *(_line(name, size) for name, size in layers)]
        if rest := sum([*self.layers.values()][_SHOWN:]):
            lines.append(_line(f"{len(self.layers) - _SHOWN} more", rest))
        return "\n".join(lines)


def _shown_name(layer: str | None) -> str:
    if layer is None:
        return "outside of the network"
    if layer.replace(".", "").isdigit():  # parts of a Sequential, which need not be equal
        return layer
    return without_numbers(layer) or "the network itself"


def _line(name: str, size: int) -> str:
    return f"{size / MIB:10.2f}  {name}"


def find_peak(
    model: nn.Module,
    step: Callable[[], Tensor],
    inputs: object = (),
    optimizer: Optimizer | None = None,
) -> Peak:
    """Run forward and backward twice on a CPU, and say what sets the peak.

    The first run finds the peak, and the second one looks around when memory has grown to it. The
    model is left as it was found, as by :func:`~razorlight.memory.measure_step`. The peak is the
    same but for a few bytes, because hooks see what autograd saves.

    Args:
        model: the model that ``step`` runs, on a CPU.
        step: runs forward and returns a scalar loss that requires grad. Both runs must do the same.
        inputs: the tensors that ``step`` reads, in nested lists, tuples and dicts.
        optimizer: the optimizer whose state counts too.

    Raises:
        RazorError: if ``step`` returns anything else, the model is on another device, or the second
            run needs less memory than the first.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU())
        >>> x = torch.randn(256, 64)
        >>> peak = find_peak(model, lambda: model(x).sum(), x)
        >>> peak.instant
        'in the backward of 1 (aten.gelu_backward)'
        >>> peak.nbytes == sum(peak.kinds.values())
        True
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise RazorError(f"what sets the peak is found on a CPU only, the model is on {device}")
    state = [] if optimizer is None else [*optimizer.state.values()]
    peak = math.inf
    for _ in range(2):
        look = _Look(model, inputs, state, peak)
        with left_as_found(model, inputs, device), look.watching(), look:
            look.track([*model.parameters()], [*model.buffers()], inputs)
            loss_of(step).backward()
        peak = look.peak
    if look.found is None:
        raise RazorError(
            "find_peak: the second run of step() needs less memory than the first; both must do "
            "the same"
        )
    return look.found


class _Look(StorageMeter):
    """Looks around at the first instant when ``peak`` bytes are alive."""

    def __init__(self, model: nn.Module, inputs: object, state: Any, peak: float) -> None:
        super().__init__()
        self.found: Peak | None = None
        self._model, self._inputs, self._state, self._awaited = model, inputs, state, peak
        self._modules = dict(model.named_modules())
        self._calls = Calls(model)
        self._saved: dict[int, tuple[weakref.ref[UntypedStorage], str | None]] = {}
        self._operator = ""
        self._in_backward_of: str | None = None
        self.track(state)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note which layers run, and what they store for backward."""
        self._calls.start()
        try:
            # detached, because an output that holds itself would never be freed
            with saved_tensors_hooks(self._note_saved, lambda tensor: tensor):
                yield
        finally:
            self._calls.stop()

    def __torch_dispatch__(self, func: Any, *more: Any) -> Any:
        self._operator = str(func.overloadpacket)
        node = current_node()
        if node is not None and (layer := self._calls.module_of(node)) is not None:
            self._in_backward_of = layer  # nodes of a graph within backward belong to no layer
        return super().__torch_dispatch__(func, *more)

    def _note_saved(self, tensor: Tensor) -> Tensor:
        if current_node() is None:  # what backward computes again is a temporary
            for storage in storages_of(tensor):
                known = self._saved.get(id(storage))
                if known is None or known[0]() is not storage:  # a later storage may get the id
                    self._saved[id(storage)] = weakref.ref(storage), self._calls.running
        return tensor.detach()

    def _note(self, storage: UntypedStorage) -> None:
        super()._note(storage)
        if self.found is None and self.live >= self._awaited:
            self.found = self._look_around()

    def _look_around(self) -> Peak:
        kinds = dict.fromkeys(KINDS, 0)
        layers: dict[str, int] = defaultdict(int)
        known = self._known_kinds()
        for key, (reference, size) in self._known.items():
            kind = known.get(key, "temporaries")
            saved, layer = self._saved.get(key, (None, None))
            if kind == "temporaries" and saved is not None and saved() is reference():
                kind = "records" if self._is_converted(layer) else "dense values"
                layers[_shown_name(layer)] += size
            kinds[kind] += size
        in_order = sorted(layers.items(), key=lambda item: -item[1])
        return Peak(self.live, self._instant(), kinds, dict(in_order))

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

    def _instant(self) -> str:
        running = self._calls.running
        if current_node() is None:
            what, where = "forward", running
        elif running is None:
            what, where = "backward", self._in_backward_of
        else:
            what, where = "second forward", running  # of a checkpoint
        place = "outside of the network" if where is None else f"of {where or 'the network'}"
        return f"in the {what} {place} ({self._operator})"
