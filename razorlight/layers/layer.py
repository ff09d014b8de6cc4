"""Razor layers: a razor layer runs the forward of its dense class, and stores by a plan."""

import copyreg
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from typing_extensions import override

from razorlight._torch import is_exported, is_traced, is_transformed, tree_leaves
from razorlight.errors import RazorError
from razorlight.functional.loss import run_loss
from razorlight.functional.one_function import as_one_function
from razorlight.layers.interception import ReplacedFunctions
from razorlight.layers.registry import Known, find_known
from razorlight.layers.seen import Seen
from razorlight.planning import LayerPlan, Role

Forward = Callable[..., Any]


class RazorModule(nn.Module):
    """A module that runs the forward of its dense class, and stores by a plan for backward.

    Parameters, buffers, hooks and ``state_dict`` are those of the dense module; only the class
    differs. Without gradients a razor module computes as the dense one. torch.export,
    torch.jit.trace and torch.fx see the dense module too.
    """

    dense_class: ClassVar[type[nn.Module]]
    known: ClassVar[Known]
    razor_plan: LayerPlan
    razor_seen: Seen

    @classmethod
    def class_for(cls, dense: type[nn.Module]) -> "type[RazorModule] | None":
        """The class that modules of class ``dense`` are turned into; None if there is none."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward of the dense class, with its arguments and shapes."""
        return self._run(super().forward, args, kwargs)

    def _run(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``forward``, a forward of the dense module, and store by the plan."""
        if self._stores(args, kwargs):
            return self._run_stored(forward, args, kwargs)
        return forward(*args, **kwargs)

    def _run_stored(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _stores(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a backward may follow, for which the module must store.

        Args:
            args: the arguments of the forward, of any structure.
            kwargs: the same, by keyword.

        Raises:
            RazorError: if torch.func or forward-mode differentiation is active.
        """
        if not torch.is_grad_enabled():
            return False
        if is_exported():
            return False
        if is_transformed():
            raise RazorError(
                f"{type(self).__name__}: razor layers go neither through torch.func (grad, vmap, "
                "jvp) nor forward-mode differentiation; leave the network dense there "
                "(exclude=[...], restore_), or use torch.no_grad() if no gradient is needed"
            )
        values = [*args, *kwargs.values()]
        if set(map(type, values)) != {Tensor}:
            values = tree_leaves(values)
            # torch.fx records which functions are called
            if any(isinstance(x, Proxy) for x in values):
                return False
        # In eval mode without gradients torch picks kernels that round differently, but not under a
        # function mode, so nothing is intercepted here.
        return self.training or any(
            isinstance(x, Tensor) and x.requires_grad for x in (*values, *self.parameters())
        )

    def __prepare_scriptable__(self) -> NoReturn:
        raise RazorError(
            f"{type(self).__name__}: torch.jit.script takes no razor layers; script the network "
            "after fit or restore_, or use torch.export, which makes a dense program of it"
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle as the dense module, so that a file can be read without razorlight."""
        razor_class, own = type(self), vars(self)
        given = self.razor_plan, self.razor_seen
        make_dense(self)
        try:
            make, args, *rest = self.__reduce_ex__(protocol)
            if make is copyreg.__newobj__:  # type: ignore[attr-defined]  # pickle would compare the class
                make, args = copyreg._reconstructor, (*args, object, None)  # type: ignore[attr-defined]
            return make, args, *({**part} if part is own else part for part in rest)
        finally:
            make_razor(self, razor_class, *given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy as a razor module, with its plan."""
        if hasattr(super(), "__deepcopy__"):
            return super().__deepcopy__(memo)  # type: ignore[misc]
        reduced: Any = super().__reduce_ex__(4)
        make, args, state = reduced[:3]
        memo[id(self)] = copied = make(*args)
        copied.__setstate__(deepcopy(state, memo))
        return copied


class RazorLayer(RazorModule):
    """A layer of a registered class: while its forward runs, its functions are replaced."""

    @classmethod
    @override
    def class_for(cls, dense: type[nn.Module]) -> type[RazorModule] | None:
        known = find_known(dense)
        return None if known is None else razor_class(cls, dense, known)

    def _run_stored(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known, plan = self.known, self.razor_plan
        if known.role is Role.LOSS and not any(p.requires_grad for p in self.parameters()):
            return run_loss(plan, forward, args, kwargs)
        if not is_traced():
            self.razor_seen.ran = True
        with ReplacedFunctions(known.functions, plan, self.razor_seen):
            if known.equivalent is not None:
                return as_one_function(forward, partial(known.equivalent, self), *args, **kwargs)
            return forward(*args, **kwargs)


class _InstanceForward:
    """Runs a forward that was set on the instance as the forward of the class would run."""

    def __init__(self, module: RazorModule, forward: Forward) -> None:
        self.module, self.forward = module, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self.module, RazorModule):  # the module has become dense again
            return self.forward(*args, **kwargs)
        return self.module._run(self.forward, args, kwargs)


def make_razor(
    module: nn.Module, razor_class: type[RazorModule], plan: LayerPlan, seen: Seen
) -> None:
    """Make ``module`` a razor module, in a microsecond."""
    # nn.Module.__setattr__ would first look whether the value is a parameter, buffer or module
    own = vars(module)
    own.update(razor_plan=plan, razor_seen=seen)
    object.__setattr__(module, "__class__", razor_class)
    if "forward" in own:
        own["forward"] = _InstanceForward(cast(RazorModule, module), own["forward"])


def make_dense(module: nn.Module, dense: type[nn.Module] | None = None) -> None:
    """Undo :func:`make_razor`.

    Args:
        module: a razor module.
        dense: the class that the module gets; by default the class that it had before.
    """
    own = vars(module)
    del own["razor_plan"], own["razor_seen"]
    if isinstance(own.get("forward"), _InstanceForward):
        own["forward"] = own["forward"].forward
    object.__setattr__(module, "__class__", dense or module.dense_class)


_CLASSES: dict[tuple[type[RazorModule], type[nn.Module], Known], type[RazorModule]] = {}


def razor_class(base: type[RazorModule], dense: type[nn.Module], known: Known) -> type[RazorModule]:
    """The class that a module of class ``dense`` is turned into.

    Args:
        base: :class:`RazorLayer` or :class:`razorlight.layers.RazorBlock`.
        dense: the dense class.
        known: the entry of the dense class in the registry.
    """
    key = (base, dense, known)
    if key not in _CLASSES:
        _CLASSES[key] = _make_class(*key)
    return _CLASSES[key]


def _make_class(base: type[RazorModule], dense: type[nn.Module], known: Known) -> type[RazorModule]:
    def forward(self: RazorModule, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, RazorModule):  # somebody kept this method, and the module is dense
            return type(self).forward(self, *args, **kwargs)
        return base.forward(self, *args, **kwargs)

    forward.__wrapped__ = dense.forward  # type: ignore[attr-defined]  # for its signature
    members = {
        "dense_class": dense,
        "known": known,
        "forward": forward,
        "__doc__": dense.__doc__,
        "__module__": dense.__module__,  # torch.fx recognises torch's own layers by it
    }
    made = type(f"Razor{dense.__name__}", (base, dense), members)
    ForkingPickler.register(made, partial(_to_another_process, base))
    return made


def _to_another_process(base: type[RazorModule], module: RazorModule) -> tuple[Any, ...]:
    return _from_another_process, (base, module.dense_class), vars(module)


def _from_another_process(base: type[RazorModule], dense: type[nn.Module]) -> nn.Module:
    made = base.class_for(dense)
    assert made is not None
    return made.__new__(made)
