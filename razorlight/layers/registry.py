"""The registry: which classes of layers are known, and which functions each class calls."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor, nn

from razorlight._torch import is_sharded
from razorlight.errors import RazorError
from razorlight.functional import FUNCTIONS, first_spelling, spellings_of
from razorlight.functional.spellings import TorchFunction
from razorlight.planning import Role


@dataclass(frozen=True, eq=False)
class Known:
    """The entry of a class of layers in the registry; :func:`register` explains each field.

    Attributes:
        role: the role of the layers.
        functions: the functions that are replaced while the forward runs, in all their spellings.
        expected: the names of the functions that the forward should call.
        uses_weights_of: the names of children whose weights the forward uses.
        equivalent: a function that computes the forward with ``functions``, or None.
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
        """Whether the layers compute nothing, and only carry records to their output."""
        return self.role is Role.VIEW and not self.functions


REGISTRY: dict[type[nn.Module], Known] = {}
"""The entries of all registered classes that are imported."""
BY_PATH: dict[str, Known] = {}
"""The entries of classes that are not imported yet, by their path ``package.module.Class``."""


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
        classes: layer classes, or their paths (``package.module.Class``). A path takes effect once
            the class is imported. The forward of a class may do anything besides calling
            ``functions``.
        functions: torch functions that are replaced while the forward runs. They must be among
            :data:`razorlight.functional.FUNCTIONS`. One spelling stands for all, such as
            ``F.softmax`` for ``torch.softmax`` and ``Tensor.softmax``. The functions are also
            replaced in children that are not razor layers. A loss has no functions: it runs again
            as a whole.
        role: the kind of value that is stored, the same for all of ``functions``. A module that
            only moves entries between its layers stores nothing, and is a view.
        alternatives: Whether the forward may call only some of ``functions``. If not, the report
            names the functions that are never called.
        uses_weights_of: names of children whose weights the forward uses without calling the
            children.
        equivalent: a function of the layer and ``x`` that computes the same as ``forward(x)``, but
            with ``functions``. It is for a forward that computes in other operations. The output is
            still that of the forward.
        pads_input: Whether the forward computes with a padded copy of its input.

    Raises:
        RazorError: for a function that is not in :data:`razorlight.functional.FUNCTIONS`.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from razorlight import Role, register
        >>> class Attend(nn.Module):
        ...     def forward(self, q, k, v):
        ...         return F.scaled_dot_product_attention(q, k, v)
        >>> register(Attend, functions=[F.scaled_dot_product_attention], role=Role.OPERANDS)
    """
    if not isinstance(role, Role):
        raise RazorError(f"register: role must be a razorlight.Role, got {role!r}")
    if isinstance(functions, str) or not isinstance(functions, Iterable):
        raise RazorError(f"register: functions must be a list of functions, got {functions!r}")
    for given in classes:
        is_class = isinstance(given, type) and issubclass(given, nn.Module)
        if not is_class and not (isinstance(given, str) and "." in given):
            raise RazorError(
                f"register: give classes of layers, or their paths (package.module.Class), not "
                f"{given!r}"
            )
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


@cache
def name_of(function: TorchFunction) -> str:
    """The name of a torch function, the same for all its spellings."""
    return getattr(first_spelling(function), "__name__", repr(function))


def find_known(dense: type[nn.Module]) -> Known | None:
    """The entry for layers of exactly the class ``dense``, or None.

    When FSDP shards a layer (:func:`torch.distributed.fsdp.fully_shard`), it makes a subclass with
    the same forward. That subclass has the entry of the original class.
    """
    _look_up_paths(part.__module__.partition(".")[0] for part in dense.__mro__)
    if dense in REGISTRY:
        return REGISTRY[dense]
    if is_sharded(dense):
        unsharded: Any = next(c for c in dense.__mro__ if not is_sharded(c))
        return find_known(unsharded)
    return None


def known_classes() -> Iterator[type[nn.Module]]:
    """All registered classes that are imported."""
    _look_up_paths([path.partition(".")[0] for path in BY_PATH])
    yield from REGISTRY


def _look_up_paths(packages: Iterable[str]) -> None:
    """Move the entries of these packages whose classes are imported by now to the registry."""
    packages = set(packages)
    for path in [path for path in BY_PATH if path.partition(".")[0] in packages]:
        if found := _class_at(path):
            REGISTRY[found] = BY_PATH.pop(path)


def _class_at(path: str) -> type[nn.Module] | None:
    """The class at ``path``, which may be inside of another class; None if it is not imported."""
    outer, _, name = path.rpartition(".")
    around = sys.modules.get(outer) or (_class_at(outer) if "." in outer else None)
    return getattr(around, name, None)
