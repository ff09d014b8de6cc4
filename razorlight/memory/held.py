"""Whether the dense values of a converted network are freed before backward, and who holds them."""

import weakref
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, UntypedStorage, nn
from typing_extensions import Self

from razorlight._torch import tree_leaves
from razorlight.conversion import Plan
from razorlight.memory.calls import Calls
from razorlight.patterns import without_numbers
from razorlight.tensors import find_other_kind

_WORTH_A_LINE = 0.01  # of the bytes of all dense values that were seen


@dataclass(frozen=True)
class Held:
    """Dense values of converted layers that are alive before backward, and have one holder.

    Attributes:
        layers: the names of the layers that read or returned the values, in the order in which the
            layers ran.
        nbytes: the bytes of the values.
        holder: words that say who holds the values.
    """

    layers: tuple[str, ...]
    nbytes: int
    holder: str

    def __str__(self) -> str:
        """One line that names the layers, the bytes and the holder."""
        more = f" and {len(self.layers) - 1} more" if len(self.layers) > 1 else ""
        size = f"{self.nbytes / 2**20:.2f} MiB"
        return f"dense values of {self.layers[0]}{more} ({size}) stay alive: {self.holder}"


@dataclass
class _Value:
    """A dense value, and the converted layers that read or returned it."""

    storage: "weakref.ref[UntypedStorage]"
    nbytes: int
    layers: list[str]


class ValuesWatch:
    """Watches the dense values that go in and out of converted layers during one forward.

    Until :meth:`stop`, hooks run with all modules. A compiler would trace them.

    Args:
        model: the network whose modules are watched.
        plan: the plan of the network. Values that a skipped layer holds are held as planned.

    Example:
        >>> import torch
        >>> from razorlight import razor_
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
        >>> with ValuesWatch(model, razor_(model, include=["*"])) as watch:
        ...     loss = model(torch.randn(2, 8)).sum()
        ...     print(watch.held(loss))
        []
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self._model = model
        self._converted = {line.name for line in plan.only("converted")}
        self._left_dense = {line.name for line in plan.only("skipped")}
        self._values: list[_Value] = []
        self._latest: dict[int, _Value] = {}  # by id of the storage; a later storage may get the id
        self._calls = Calls(model, self._note)
        self._hooked = [
            name
            for name, module in model.named_modules()
            if module._forward_hooks or module._forward_pre_hooks
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Begin to watch."""
        self._calls.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End to watch, and remove the hooks."""
        self._calls.stop()

    @property
    def active(self) -> bool:
        """Whether the hooks are in place."""
        return self._calls.active

    def _note(self, name: str, values: Any) -> None:
        if name not in self._converted:
            return
        for x in tree_leaves(values):
            # a leaf is the batch or a parameter, which stay alive anyway
            if _is_dense(x) and x.requires_grad and not x.is_leaf and x.numel():
                storage = x.untyped_storage()
                value = self._latest.get(id(storage))
                if value is None or value.storage() is not storage:
                    value = _Value(weakref.ref(storage), storage.nbytes(), [])
                    self._latest[id(storage)] = value
                    self._values.append(value)
                value.layers.append(name)

    def held(self, loss: Tensor) -> list[Held]:
        """Find the dense values that are alive, grouped by holder, largest group first.

        Args:
            loss: the loss whose graph is searched. Its backward has not run.
        """
        alive = {id(s): value for value in self._values if (s := value.storage()) is not None}
        holders = self._holders(loss, alive.keys())
        by_holder: dict[str, list[_Value]] = defaultdict(list)
        for key, value in alive.items():
            holder = holders[key] if key in holders else self._holder_in_python()
            if holder is not _BY_PLAN:
                by_holder[holder].append(value)
        groups = [
            Held(
                tuple(dict.fromkeys(name for value in found for name in value.layers)),
                sum(value.nbytes for value in found),
                holder,
            )
            for holder, found in by_holder.items()
        ]
        least = _WORTH_A_LINE * sum(value.nbytes for value in self._values)
        worth = [group for group in groups if group.nbytes >= least]
        return sorted(worth, key=lambda group: -group.nbytes)

    def _holders(self, loss: Tensor, storages: Collection[int]) -> dict[int, str]:
        """Who holds each of ``storages`` (by id) in the graph of ``loss``."""
        holders: dict[int, str] = {}
        for node in _nodes(loss):
            kept = {id(x.untyped_storage()) for x in _saved(node)}.intersection(storages)
            if kept:
                holder = _BY_PLAN if _is_razors(node) else self._describe(node)
                # a holder that is not planned counts more than one that is
                holders |= {key: holder or holders.get(key, _BY_PLAN) for key in kept}
        return holders

    def _describe(self, node: Any) -> str:
        name, where = node.name().removesuffix("Backward0").lower(), self._calls.module_of(node)
        if where is None:
            return f"{name} outside of the network keeps them for backward"
        if where in self._left_dense:
            return _BY_PLAN
        kind = type(self._model.get_submodule(where)).__name__
        place = f"{where} ({kind})" if where else f"the forward of {kind} itself"
        return f"{name} in {without_numbers(place)} keeps them for backward"

    def _holder_in_python(self) -> str:
        if self._hooked:
            where = self._hooked[0] or "the network"
            return f"a hook on {where} or other Python code refers to them"
        return "Python code refers to them: an attribute, a list, or what the step returns"


_BY_PLAN = ""


def _nodes(loss: Tensor) -> Iterator[Any]:
    seen: set[Any] = set()
    ahead: list[Any] = [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        ahead.extend(following for following, _ in node.next_functions)


def _saved(node: Any) -> Iterator[Tensor]:
    for name in dir(node):
        if name.startswith("_raw_saved_"):
            for saved in tree_leaves(getattr(node, name)):
                # A value that a hook packed stays packed: unpacking could run a checkpoint again.
                yield from filter(_is_dense, tree_leaves(saved.data))


def _is_dense(x: Any) -> bool:
    return type(x) is Tensor and find_other_kind([x]) is None


def _is_razors(node: Any) -> bool:
    """Whether the node belongs to an autograd Function of this package, which stores as planned."""
    function = getattr(node, "_forward_cls", None)
    return function is not None and function.__module__.startswith("razorlight.")
