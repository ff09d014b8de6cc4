"""The registry: which classes of layers are known, and what is known of each."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from razorlight._torch import is_sharded
from razorlight.errors import RazorError
from razorlight.functional import FUNCTIONS, first_spelling, spellings_of
from razorlight.planning import Role

TorchFunction = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a class of layers; see :func:`register` for the meaning.

    Attributes:
        role: of its layers.
        functions: that are replaced while the forward runs, in all their spellings.
        expected: names of those functions that the forward should call.
        uses_weights_of: names of children.
        equivalent: the forward, by functions that are replaced.
        pads_input: Whether the layer computes with a padded copy of its input.
    """

    role: Role
    functions: frozenset[TorchFunction] = frozenset()
    expected: frozenset[str] = frozenset()
    uses_weights_of: frozenset[str] = frozenset()
    equivalent: Callable[[Any, Tensor], Tensor] | None = None
    pads_input: bool = False

    @property
    def is_view(self) -> bool:
        """Whether a layer computes nothing, and only carries records on."""
        return self.role is Role.VIEW and not self.functions


REGISTRY: dict[type[nn.Module], Known] = {}
"""What is known of each class that was registered and is imported."""
BY_PATH: dict[str, Known] = {}
"""What is known of classes that nobody has imported yet, by ``package.module.Class``."""


def register(
    *classes: type[nn.Module] | str,
    functions: Iterable[TorchFunction] = (),
    role: Role,
    alternatives: bool = False,
    uses_weights_of: Iterable[str] = (),
    equivalent: Callable[[Any, Tensor], Tensor] | None = None,
    pads_input: bool = False,
) -> None:
    """Make layers of exactly these classes convertible.

    Args:
        classes: layer classes, or their paths (``package.module.Class``), by which they are known
            once somebody else has imported them. Their forward may do anything besides calling
            ``functions``.
        functions: torch functions to replace while the forward runs, out of
            :data:`razorlight.functional.FUNCTIONS`, with all their spellings, such as
            ``F.softmax``, ``torch.softmax`` and ``Tensor.softmax``. They are replaced in children
            that are not razor layers too. A loss has none: it runs again as a whole.
        role: what is stored, the same for all of ``functions``. A block that only moves entries
            about between its layers stores nothing, and is a view.
        alternatives: Whether the forward calls some of ``functions`` alone, as it is told. If not,
            the report names those that are never called.
        uses_weights_of: names of children whose weights the forward uses without calling them.
        equivalent: for a forward ``(x)`` that computes in other operations what ``functions`` do:
            the same ``(layer, x)`` by these. The output is still the forward's.
        pads_input: Whether the forward computes with a padded copy of its input.

    Raises:
        RazorError: for a function that has no counterpart.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from razorlight import Role, register
        >>> class Attend(nn.Module):
        ...     def forward(self, q, k, v):
        ...         return F.scaled_dot_product_attention(q, k, v)
        >>> register(Attend, functions=[F.scaled_dot_product_attention], role=Role.OPERANDS)
    """
    functions = frozenset(functions)
    if unknown := functions - FUNCTIONS.keys():
        names = ", ".join(sorted(map(name_of, unknown)))
        raise RazorError(f"register: no razor function for {names}")
    known = Known(
        role=role,
        functions=frozenset(spelling for one in functions for spelling in spellings_of(one)),
        expected=frozenset(() if alternatives else map(name_of, functions)),
        uses_weights_of=frozenset(uses_weights_of),
        equivalent=equivalent,
        pads_input=pads_input,
    )
    for given in classes:
        if isinstance(given, str):
            BY_PATH[given] = known
        else:
            REGISTRY[given] = known


def name_of(function: TorchFunction) -> str:
    """The name of a torch function, the same for all its spellings."""
    return getattr(first_spelling(function), "__name__", "?")


def find_known(dense: type[nn.Module]) -> Known | None:
    """What is known of layers of exactly the class ``dense``, if it is registered.

    The class of a layer that FSDP shards (:func:`torch.distributed.fsdp.fully_shard`) is a subclass
    made on the spot, of the same forward. It is known as the class that it was before.
    """
    _look_up_paths(part.__module__.partition(".")[0] for part in dense.__mro__)
    if dense in REGISTRY:
        return REGISTRY[dense]
    if is_sharded(dense):
        unsharded: Any = next(c for c in dense.__mro__ if not is_sharded(c))
        return find_known(unsharded)
    return None


def known_classes() -> Iterator[type[nn.Module]]:
    """All classes that are registered and imported."""
    _look_up_paths([path.partition(".")[0] for path in BY_PATH])
    yield from REGISTRY


def _look_up_paths(packages: Iterable[str]) -> None:
    """Move classes of these packages that are imported by now to the registry."""
    packages = set(packages)
    for path in [path for path in BY_PATH if path.partition(".")[0] in packages]:
        module, _, name = path.rpartition(".")
        if found := getattr(sys.modules.get(module), name, None):
            REGISTRY[found] = BY_PATH.pop(path)
