"""How a layer becomes a razor layer: same class, same forward, other storage."""

import copyreg
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from enum import Enum
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.distributed.fsdp import FSDPModule
from torch.fx import Proxy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from razorlight.codecs import Codec, Dense, Mask, Slope, Uniform
from razorlight.errors import RazorError
from razorlight.functional import FUNCTIONS, MOVES, first_spelling, spellings_of
from razorlight.functional.attention import multi_head_attention_forward
from razorlight.functional.loss import run_loss
from razorlight.functional.written_out import written_out
from razorlight.layers.seen import Seen
from razorlight.sharing import Storage, hand_on, hand_on_joined, one_of_several
from razorlight.tensors import find_other_kind

TorchFunction = Callable[..., Any]


class Role(Enum):
    """What a layer reads in backward, and so which codecs may store it."""

    NORM = "norm"
    """The input of a norm of tokens, normalised where records are shared."""
    MAP_NORM = "map_norm"
    """The input of a norm of maps, normalised where records are shared."""
    PRODUCT = "product"
    """The input of a product with a weight."""
    ATTENTION = "attention"
    """Operands of products of activations: queries, keys, values, probabilities, gated units."""
    SLOPE = "slope"
    """The input of a curved activation: not to be pruned, since its slope at 0 is not 0."""
    KINK = "kink"
    """The input of a curved activation whose slope jumps at 0: its signs are kept."""
    BOUNDED = "bounded"
    """The output of a curved activation that lies between two numbers, where its slope is 0."""
    GATE = "gate"
    """What a rectifier let through: stored exactly, in bits, or the output that shows it."""
    BITS = "bits"
    """What dropout let through, or a place in a window: stored exactly, in bits."""
    LOSS = "loss"
    """The logits of a loss, which runs again in backward and gives the same then."""
    BLOCK = "block"
    """The input of a whole block, which runs again in backward."""
    CARRIER = "carrier"
    """Nothing: records on what it moves about (:data:`razorlight.functional.MOVES`) go on."""

    def accepts(self, codec: Codec) -> bool:
        """Whether ``codec`` may store what a layer of this role reads."""
        if self is Role.CARRIER:
            return False
        if self is Role.LOSS:
            return isinstance(codec, Dense)
        if self is Role.BITS:
            return isinstance(codec, Mask)
        if self is Role.GATE:
            return isinstance(codec, Mask | Uniform)
        if self in (Role.BLOCK, Role.KINK, Role.BOUNDED):
            return isinstance(codec, Dense | Uniform)
        if self is Role.SLOPE:
            return isinstance(codec, Dense | Uniform | Slope)
        return not isinstance(codec, Mask | Slope)

    def fit(self, codec: Codec) -> Codec:
        """``codec`` such that a rectifier's gate can be read from what it stores."""
        if self in (Role.MAP_NORM, Role.KINK):
            return codec.keeping("signs")
        return codec.keeping("zeros") if self is Role.GATE else codec


class RazorLayer(nn.Module):
    """A layer that runs the forward of its dense class, with other storage for backward.

    While the dense forward runs, the torch functions named in :attr:`functions` are replaced by
    those of :mod:`razorlight.functional`. Parameters, buffers, hooks and ``state_dict`` are those
    of the dense layer; only the class differs, and :attr:`razor_storage` says how it stores.

    Without gradients it is the dense layer. What torch.export, torch.jit.trace and torch.fx make of
    it is made of the dense layer.
    """

    dense_class: ClassVar[type[nn.Module]]
    functions: ClassVar[frozenset[TorchFunction]]
    role: ClassVar[Role]
    named: ClassVar[frozenset[str]]
    runs: ClassVar[frozenset[str]]
    same_as: ClassVar[Any]
    razor_storage: Storage
    razor_seen: Seen

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The dense class's forward; see there for arguments and shapes."""
        return self._run(super().forward, args, kwargs)

    def _run(
        self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``forward(*args, **kwargs)``, a forward of the dense layer, with storage of our own."""
        if not self._stores(args, kwargs):
            return forward(*args, **kwargs)
        if self.role is Role.LOSS and not any(p.requires_grad for p in self.parameters()):
            return run_loss(self.razor_storage, forward, args, kwargs)
        if not torch.compiler.is_compiling():
            self.razor_seen.ran = True
        with _ReplacedFunctions(self.functions, self.razor_storage, self.razor_seen):
            if self.same_as is not None:
                return written_out(forward, partial(self.same_as, self), *args, **kwargs)
            return forward(*args, **kwargs)

    def _stores(self, *given: Any) -> bool:
        """Whether a backward may follow, for which something is to be stored.

        Args:
            given: the arguments, of any structure.

        Raises:
            RazorError: if it would be one of torch.func or forward-mode differentiation.
        """
        if not torch.is_grad_enabled():
            return False
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            return False
        if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
            raise RazorError(
                f"{type(self).__name__}: razor layers go neither through torch.func (grad, vmap, "
                "jvp) nor forward-mode differentiation; leave the network dense there "
                "(exclude=[...], restore_), or use torch.no_grad() if no gradient is needed"
            )
        values = tree_leaves(given)
        if any(isinstance(x, Proxy) for x in values):  # torch.fx looks for what is called
            return False
        # in eval mode torch has kernels of other bits for what no gradient goes through, which it
        # does not take while functions are replaced
        return self.training or any(
            isinstance(x, Tensor) and x.requires_grad for x in (*values, *self.parameters())
        )

    def __prepare_scriptable__(self) -> NoReturn:
        raise RazorError(
            f"{type(self).__name__}: torch.jit.script takes no razor layers; script the network "
            "after fit or restore_, or use torch.export, which makes a dense program of it"
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """As the dense layer: a file that holds it opens where there is no razorlight."""
        razor_class, own = type(self), vars(self)
        given = self.razor_storage, self.razor_seen
        make_dense(self)
        try:
            make, args, *rest = self.__reduce_ex__(protocol)
            if make is copyreg.__newobj__:  # type: ignore[attr-defined]  # asks for the class
                make, args = copyreg._reconstructor, (*args, object, None)  # type: ignore[attr-defined]
            return make, args, *({**part} if part is own else part for part in rest)
        finally:
            make_razor(self, razor_class, *given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A razor layer, with its storage."""
        if hasattr(super(), "__deepcopy__"):
            return super().__deepcopy__(memo)  # type: ignore[misc]
        reduced: Any = super().__reduce_ex__(4)
        make, args, state = reduced[:3]
        memo[id(self)] = copied = make(*args)
        copied.__setstate__(deepcopy(state, memo))
        return copied


class _Around:
    """A forward that was set on the instance, run as the layer's own would be."""

    def __init__(self, layer: RazorLayer, forward: Callable[..., Any]) -> None:
        self.layer, self.forward = layer, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self.layer, RazorLayer):  # somebody holds it since
            return self.forward(*args, **kwargs)
        return self.layer._run(self.forward, args, kwargs)


def make_razor(
    layer: nn.Module, razor_class: type[RazorLayer], storage: Storage, seen: Seen
) -> None:
    """Make ``layer`` a razor layer, in a microsecond."""
    # as attributes of the module they would pass through what it does for parameters
    own = vars(layer)
    own.update(razor_storage=storage, razor_seen=seen)
    object.__setattr__(layer, "__class__", razor_class)
    if "forward" in own:
        own["forward"] = _Around(cast(RazorLayer, layer), own["forward"])


def make_dense(layer: nn.Module, dense: type[nn.Module] | None = None) -> None:
    """Undo :func:`make_razor`.

    Args:
        layer: a razor layer.
        dense: the class that it gets; that of before by default.
    """
    own = vars(layer)
    del own["razor_storage"], own["razor_seen"]
    if isinstance(own.get("forward"), _Around):
        own["forward"] = own["forward"].forward
    object.__setattr__(layer, "__class__", dense or layer.dense_class)


def make_class(
    base: type[RazorLayer],
    dense: type[nn.Module],
    members: Mapping[str, Any],
    find: Callable[[type[nn.Module]], type[RazorLayer] | None],
) -> type[RazorLayer]:
    """The razor class of a dense one, which goes to other processes as such.

    Args:
        base: what it derives from besides ``dense``.
        dense: the dense class.
        members: of the new class.
        find: gives the class once more, in another process.
    """

    def forward(self: RazorLayer, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, RazorLayer):  # bound while it was one, and called since
            return type(self).forward(self, *args, **kwargs)
        return base.forward(self, *args, **kwargs)

    forward.__wrapped__ = dense.forward  # type: ignore[attr-defined]  # for its signature
    own = {
        "dense_class": dense,
        "forward": forward,
        "__doc__": dense.__doc__,
        "__module__": dense.__module__,  # by which torch.fx knows torch's own layers
    }
    razor_class = type(f"Razor{dense.__name__}", (base, dense), {**members, **own})
    ForkingPickler.register(razor_class, partial(_to_another_process, find))
    return razor_class


def _to_another_process(find: Any, layer: RazorLayer) -> tuple[Any, ...]:
    return _from_another_process, (find, layer.dense_class), vars(layer)


def _from_another_process(find: Any, dense: type[nn.Module]) -> nn.Module:
    razor_class: type[nn.Module] = find(dense)
    return razor_class.__new__(razor_class)


class _ReplacedFunctions(TorchFunctionMode):
    def __init__(self, functions: frozenset[TorchFunction], storage: Storage, seen: Seen) -> None:
        super().__init__()
        self.functions, self.storage, self.seen = functions, storage, seen

    def __torch_function__(
        self, func: TorchFunction, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():  # inside the autograd Functions of inner layers
            return func(*args, **kwargs)
        if func is Tensor.unflatten:  # in which a compiler meets one more of that name
            func = torch.unflatten
        if func is F.multi_head_attention_forward:
            with self:
                return multi_head_attention_forward(*args, **kwargs)
        if func not in self.functions and func not in MOVES:
            return func(*args, **kwargs)
        operands = (*args, *kwargs.values())
        if (kind := find_other_kind(operands)) is not None:
            if func in self.functions and _is_stored_of(operands):
                self.seen.leave_to_torch(kind)
            return func(*args, **kwargs)
        if func in self.functions and _is_stored_of(operands) and kwargs.get("out") is None:
            if not torch.compiler.is_compiling():
                self.seen.called.add(name_of(func))
            with torch._C.DisableTorchFunction():  # what it calls is not to be replaced again
                out = FUNCTIONS[func](self.storage, *args, **kwargs)
        else:
            out = func(*args, **kwargs)
        # an input by keyword is left alone
        if func in MOVES and args and self.storage.shares:
            return _carry(self.storage, func, out, *args, **kwargs)
        return out


def _is_stored_of(operands: Iterable[Any]) -> bool:
    """Whether there is a gradient to come, and an entry in each operand."""
    tensors = [x for x in operands if isinstance(x, Tensor)]
    return any(x.requires_grad for x in tensors) and all(x.numel() for x in tensors)


def _carry(
    storage: Storage, func: TorchFunction, out: Any, x: Any, *args: Any, **kwargs: Any
) -> Any:
    """Hand what is known of ``x`` on to ``out = func(x, *args, **kwargs)``, or to each part."""
    move = partial(_move, func=func, args=args, kwargs=kwargs)
    if not isinstance(x, Tensor):
        by_sample = func is torch.cat and _dim_of_cat(out, *args, **kwargs) != 0
        hand_on_joined(x, out, storage, move, by_sample)
        return out
    if isinstance(out, Tensor):
        hand_on(x, out, move, by_sample=_is_within_samples(func, x, *args, **kwargs))
        return out
    parts = tuple(one_of_several(part) for part in out)
    for i, part in enumerate(parts):
        hand_on(x, part, partial(move, part=i))
    return parts


def _dim_of_cat(out: Tensor, dim: int = 0, **_: Any) -> int:
    return dim % out.ndim


def _is_within_samples(func: TorchFunction, x: Tensor, pad: Any = None, *_: Any, **__: Any) -> bool:
    """Whether ``func`` moves entries within their sample (dim 0) alone, as far as it is known."""
    whole = (F.interpolate, F.pixel_shuffle, F.pixel_unshuffle)
    return func in whole or (func is F.pad and len(pad) < 2 * x.ndim)


def _move(
    x: Tensor | Sequence[Tensor],
    func: TorchFunction,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    part: int | None = None,
) -> Tensor:
    moved = func(x, *args, **kwargs)
    return moved if part is None else moved[part]


def name_of(function: TorchFunction) -> str:
    """The name of a torch function, the same for all its spellings."""
    return getattr(first_spelling(function), "__name__", "?")


REGISTRY: dict[type[nn.Module], type[RazorLayer]] = {}
BY_PATH: dict[str, Callable[[type[nn.Module]], None]] = {}
"""What registers a class of that path, once one is met."""


def register(
    *classes: type[nn.Module] | str,
    functions: Iterable[TorchFunction] = (),
    role: Role,
    alternatives: bool = False,
    runs: Iterable[str] = (),
    same_as: Callable[[Any, Tensor], Tensor] | None = None,
) -> None:
    """Make layers of exactly these classes convertible.

    Args:
        classes: layer classes, or their paths (``package.module.Class``), by which they are known
            once somebody else has imported them. Their forward may do anything besides calling
            ``functions``.
        functions: torch functions to replace while their forward runs, out of
            :data:`razorlight.functional.FUNCTIONS`, with all their spellings, such as
            ``F.softmax``, ``torch.softmax`` and ``Tensor.softmax``. They are replaced in children
            that are not razor layers too. A loss has none: it runs again as a whole.
        role: what is stored, the same for all of ``functions``. A block that only moves entries
            about between its layers has none, and is a carrier.
        alternatives: Whether the forward calls some of ``functions`` alone, as it is told; if not,
            the report names those that are never called.
        runs: names of children whose weights the forward uses without calling them.
        same_as: for a forward ``(x)`` that writes out in other operations what ``functions`` do:
            the same ``(layer, x)`` by these. The output is still the forward's.

    Raises:
        RazorError: for a function that has no counterpart.

    Example:
        >>> attention = [F.scaled_dot_product_attention]
        >>> register(MyAttention, functions=attention, role=Role.ATTENTION)
    """
    functions = frozenset(functions)
    if unknown := functions - FUNCTIONS.keys():
        names = ", ".join(sorted(map(name_of, unknown)))
        raise RazorError(f"register: no razor function for {names}")
    members = {
        "functions": frozenset(f for one in functions for f in spellings_of(one)),
        "role": role,
        "named": frozenset(() if alternatives else map(name_of, functions)),
        "runs": frozenset(runs),
        "same_as": same_as and staticmethod(same_as),  # no method of the class, whatever it is
    }
    for dense in classes:
        if isinstance(dense, str):
            BY_PATH[dense] = partial(_add, members)
        else:
            _add(members, dense)


def _add(members: dict[str, Any], dense: type[nn.Module]) -> None:
    REGISTRY[dense] = make_class(RazorLayer, dense, members, find_razor_class)


def find_razor_class(dense: type[nn.Module]) -> type[RazorLayer] | None:
    """The class that layers of exactly the class ``dense`` are turned into, if it is registered.

    That of a layer which FSDP shards (:func:`torch.distributed.fsdp.fully_shard`) is a subclass
    made on the spot, of the same forward: it is known with the class that it was before.
    """
    if dense in REGISTRY:
        return REGISTRY[dense]
    if issubclass(dense, FSDPModule):
        _add_sharded(dense)
    elif add := BY_PATH.get(f"{dense.__module__}.{dense.__qualname__}"):
        add(dense)
    return REGISTRY.get(dense)


def _add_sharded(dense: Any) -> None:
    known = find_razor_class(next(c for c in dense.__mro__ if not issubclass(c, FSDPModule)))
    if known is not None:
        REGISTRY[dense] = make_class(known, dense, {}, find_razor_class)
