"""The optimizer's step within backward, so that the gradients are never alive all at once.

Backward runs in the reverse order of forward. Whatever reads a parameter in backward was made
after the parameter was first used, and so runs before the gradient of the parameter is whole. That
holds for records too: a record that reads a weight belongs to a value that came from this weight.
So a parameter can be stepped as soon as its gradient is whole. Code that reads a parameter after
that, such as one that used the parameter detached before, meets torch's check of versions.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn, optim
from torch.autograd.graph import increment_version
from torch.nn.utils import clip_grad_value_
from torch.optim import Optimizer

from razorlight.errors import RazorError

_KNOWN = {
    optim.ASGD,
    optim.Adadelta,
    optim.Adagrad,
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Rprop,
    optim.SGD,
    optim.SparseAdam,
}
"""Optimizers that step each parameter by itself. Others are tried on small parameters."""

_CHANGED = "modified by an inplace operation"
_LATE_READER = (
    "razorlight: parameters are stepped in backward; if the changed tensor is one of them, "
    "something read it after its step: give that reader a copy (detach().clone()), or step after "
    "backward, without step_in_backward or OptimizerInBackward"
)


@contextmanager
def step_in_backward(optimizer: Optimizer, clip_value: float | None = None) -> Iterator[None]:
    """A context in which backward steps each parameter as soon as its gradient is whole.

    The gradient is freed right after that, so that the gradients of all parameters are never alive
    at once. The parameters and the optimizer's state become bit for bit those of a step after
    backward. Each context is one step, and holds one backward pass. ``optimizer.step()`` follows as
    ever. It finds no gradients, and keeps what schedulers and some optimizers count.

    Parameters without a gradient stay as they are, as after torch's default ``zero_grad()``.
    Gradients that were there before the context are part of the step. Contexts of several
    optimizers, each with parameters of its own, may be nested. Gradients may not be scaled by a
    ``GradScaler``: it would undo the scale too late, and its own step fails.

    Args:
        optimizer: an optimizer that steps each parameter by itself, as all of torch but LBFGS do.
            An optimizer of another package is tried on small parameters first. ``foreach`` and
            ``fused`` stay as they are.
        clip_value: gradients are clipped to [-clip_value, clip_value], as by
            :func:`torch.nn.utils.clip_grad_value_`. None clips nothing. Clipping by the norm is not
            possible, because the norm is that of all gradients.

    Raises:
        RazorError: if the optimizer does not step each parameter by itself, or a parameter is
            stepped by another context too. In backward, if a parameter gets a second gradient. At
            the end, if a gradient came back, as by DistributedDataParallel.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(8, 1)
        >>> optimizer = torch.optim.AdamW(model.parameters())
        >>> loss = model(torch.randn(4, 8)).square().mean()
        >>> with step_in_backward(optimizer):
        ...     loss.backward()
        >>> model.weight.grad is None
        True
        >>> optimizer.state[model.weight]["step"]
        tensor(1.)
    """
    stepper = _Stepper(_unwrapped(optimizer), clip_value)
    handles: list[Any] = []
    try:
        handles += stepper.hook_in()
        yield
        stepper.check_gradients_are_gone()
    except RuntimeError as error:
        if stepper.stepped and _CHANGED in str(error):
            # as add_note of Python 3.11 does
            error.__notes__ = [*getattr(error, "__notes__", []), _LATE_READER]
        raise
    finally:
        for handle in handles:
            handle.remove()
        _ACTIVE.discard(stepper)


@contextmanager
def no_steps() -> Iterator[None]:
    """A context in which :func:`step_in_backward` frees gradients, and steps no parameter.

    A measurement leaves parameters as they are.
    """
    _SUSPENDED.append(True)
    try:
        yield
    finally:
        _SUSPENDED.pop()


def free_gradient(parameter: Tensor) -> None:
    """Free the gradient of a parameter: a hook for ``register_post_accumulate_grad_hook``."""
    parameter.grad = None


def check_steps_one_by_one(optimizer: Optimizer) -> None:
    """Raise a RazorError unless the optimizer steps each parameter by itself."""
    optimizer = _unwrapped(optimizer)
    if type(optimizer) in _KNOWN or optimizer in _TRIED:
        return
    if why := _found_by_trial(optimizer):
        raise RazorError(
            f"step_in_backward: {type(optimizer).__name__} does not step each parameter by itself "
            f"({why}); step after backward, or take an optimizer that does, such as AdamW"
        )
    _TRIED.add(optimizer)


class _Stepper:
    """The hook that steps a parameter of one optimizer.

    Attributes:
        groups: by parameter, its group.
        stepped: the parameters that were stepped.
    """

    def __init__(self, optimizer: Optimizer, clip_value: float | None) -> None:
        if clip_value is not None and clip_value <= 0:
            raise RazorError(f"step_in_backward: clip_value must be above 0, got {clip_value}")
        check_steps_one_by_one(optimizer)
        self.optimizer, self.clip_value = optimizer, clip_value
        self.groups = {p: group for group in optimizer.param_groups for p in group["params"]}
        self.stepped: set[Tensor] = set()

    def hook_in(self) -> list[Any]:
        """Register this hook with each parameter that needs a gradient."""
        if any(not self.groups.keys().isdisjoint(other.groups) for other in _ACTIVE):
            raise RazorError(
                "step_in_backward: two optimizers would step one parameter; give each parameter to "
                "one optimizer, and enter one context for each optimizer"
            )
        _ACTIVE.add(self)
        trained = [p for p in self.groups if p.requires_grad]
        return [p.register_post_accumulate_grad_hook(self) for p in trained]

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is None:  # another hook took it
            return
        if not _SUSPENDED:
            self._step(parameter)
        parameter.grad = None

    def _step(self, parameter: Tensor) -> None:
        if parameter in self.stepped:
            raise RazorError(
                "step_in_backward: a second gradient came for a parameter of shape "
                f"{tuple(parameter.shape)}, whose first one is applied and freed; run backward "
                "once in a step, and checkpoint with use_reentrant=False; to accumulate "
                "gradients, step after backward"
            )
        self.stepped.add(parameter)
        if self.clip_value is not None:
            clip_grad_value_([parameter], self.clip_value)
        with _LOCK:
            _step_alone(self.optimizer, self.groups[parameter], parameter)
        increment_version(parameter)  # some optimizers write to parameter.data, which has its own

    def check_gradients_are_gone(self) -> None:
        if any(parameter.grad is not None for parameter in self.stepped):
            raise RazorError(
                "step_in_backward: a gradient came back after its parameter was stepped, as by "
                "DistributedDataParallel, which averages gradients later; use one device, or "
                "FSDP2 (fully_shard)"
            )


_ACTIVE: set[_Stepper] = set()
_SUSPENDED: list[bool] = []
_LOCK = threading.Lock()
"""Each device has a thread of backward of its own."""
_TRIED: WeakSet[Optimizer] = WeakSet()


_WRAPPERS = {"LightningOptimizer", "_FabricOptimizer"}
"""Classes of Lightning, which this package must not import."""


def _unwrapped(optimizer: Any) -> Optimizer:
    """The optimizer itself, out of Lightning's wrapper."""
    is_wrapper = any(base.__name__ in _WRAPPERS for base in type(optimizer).__mro__)
    inner: Optimizer = optimizer.optimizer if is_wrapper else optimizer
    return inner


def _step_alone(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> None:
    """Step one parameter, by all options of its group, also foreach and fused."""
    groups = optimizer.param_groups
    optimizer.param_groups = [{**group, "params": [parameter]}]
    try:
        _step(optimizer)
    finally:
        optimizer.param_groups = groups


def _step(optimizer: Optimizer) -> None:
    """Step without the hooks of the step, which are for the whole step."""
    step: Any = type(optimizer).step
    step = step.__wrapped__ if getattr(step, "hooked", False) else step
    step(optimizer)


def _found_by_trial(optimizer: Optimizer) -> str | None:
    """Why an optimizer does not step each parameter by itself; None if it does.

    Two copies of the optimizer step small parameters: the one all at once, the other one by one in
    the reverse order, and then as a whole, without gradients.
    """
    try:
        # an optimizer that compiles its step would compile it for each small shape
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            whole, single = _small_copy(optimizer), _small_copy(optimizer)
            for seed in range(3):
                for (_, p), gradient in zip(_members(whole), _gradients(whole, seed), strict=True):
                    p.grad = gradient
                _step(whole)
                given = zip(_members(single), _gradients(single, seed), strict=True)
                for (group, p), gradient in reversed([*given]):
                    p.grad = gradient
                    _step_alone(single, group, p)
                    p.grad = None
                _step(single)  # as after backward
        pairs = [*zip(_members(whole), _members(single), strict=True)]
        alike = all(torch.equal(p, q) and _options(a) == _options(b) for (a, p), (b, q) in pairs)
    except Exception as error:
        return str(error).partition("\n")[0]
    return None if alike else "one by one, small parameters became others than at once"


def _small_copy(optimizer: Optimizer) -> Optimizer:
    """A copy without state, whose parameters have at most four entries along each dim."""
    generator = torch.Generator().manual_seed(0)
    small: dict[Tensor, Tensor] = {}
    for _, p in _members(optimizer):
        value = torch.randn([min(size, 4) for size in p.shape], generator=generator)
        small[p] = nn.Parameter(value.to(p.device, p.dtype))
    return copy_optimizer(optimizer, small)


def copy_optimizer(optimizer: Optimizer, parameters: Mapping[Tensor, Tensor]) -> Optimizer:
    """A copy without state and hooks, for other parameters.

    Args:
        optimizer: stays as it is.
        parameters: by each parameter of the optimizer, the one that takes its place.
    """
    optimizer = _unwrapped(optimizer)
    memo: dict[int, Any] = {id(p): other for p, other in parameters.items()}
    memo[id(optimizer.state)] = defaultdict(dict)
    copied: Optimizer = object.__new__(type(optimizer))
    vars(copied).update(deepcopy(vars(optimizer), memo))
    vars(copied).pop("step", None)  # a scheduler puts the step of its own optimizer there
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        vars(copied)[hooks].clear()
    return copied


def _gradients(optimizer: Optimizer, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
        for _, p in _members(optimizer)
    ]


def _members(optimizer: Optimizer) -> list[tuple[dict[str, Any], Tensor]]:
    """Each group, and each parameter of the group."""
    return [(group, p) for group in optimizer.param_groups for p in group["params"]]


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}
