"""Smooth activations: the input is stored, or the output if the slope follows from the output."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight._torch import is_gpu
from razorlight.codecs import Elementwise, Name, Slope
from razorlight.codecs.slope import Curve
from razorlight.functional.operation import (
    Gradients,
    Needs,
    Operation,
    Result,
    Saved,
    run,
    run_in_place,
)
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import (
    LinearOutput,
    Record,
    attach_record,
    find,
    made_from,
    record_of,
    store,
)

aten = torch.ops.aten

# These codecs are made here, because a compiler sees no fields of a codec that is made while it
# traces.
_GRADIENTS: dict[Curve, Name] = {
    "gelu": "gelu_gradient",
    "gelu_tanh": "gelu_tanh_gradient",
    "silu": "silu_gradient",
    "hardswish": "hardswish_gradient",
}
_SLOPES = {(bits, curve): Slope(bits, curve) for bits in (2, 3, 4) for curve in get_args(Curve)}


@dataclass(eq=False)
class _Activation(Operation):
    """An elementwise function.

    Attributes:
        function: computes the output from the input.
        gradient: computes the input's gradient from the output's gradient and a stored value.
    """

    function: Callable[..., Tensor]
    gradient: Callable[..., Tensor]

    def forward(self, needs: Needs, x: Tensor) -> Result:
        return Result(self.function(x))

    def forward_in_place(self, x: Tensor) -> None:
        self.function(x, inplace=True)

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        if isinstance(self.gradient, Elementwise):
            together = record.read_then(self.gradient, grad)
            if together is not None:
                return (together,)
        value, is_owned = record.take()  # the layers that follow have read the value already
        return (self.gradient(grad, value, **({"grad_input": value} if is_owned else {})),)


def activate(
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    inplace: bool,
    record: Record,
) -> Tensor:
    """Apply ``function``, whose ``gradient`` reads ``record``."""
    operation = _Activation(function, gradient)
    return run_in_place(operation, record, x) if inplace else run(operation, record, x)


def channels_of(x: Tensor) -> int:
    """The dim of the channels: the last dim of tokens and of a Linear's output, else dim 1."""
    return -1 if x.ndim == 3 or isinstance(made_from(x), LinearOutput) else 1


def _hardswish_gradient(grad: Tensor, x: Tensor, grad_input: Tensor | None = None) -> Tensor:
    if grad_input is None:
        return aten.hardswish_backward(grad, x)
    return aten.hardswish_backward(grad, x, out=grad_input)


def _times_slope(grad: Tensor, slopes: Tensor, grad_input: Tensor | None = None) -> Tensor:
    return slopes.mul_(grad)


times_slope = Elementwise("times", _times_slope)
"""``slopes * grad``. It overwrites ``slopes``, which each reading makes anew."""


def _smooth(
    plan: LayerPlan,
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    inplace: bool = False,
    curve: Curve | None = None,
) -> Tensor:
    """An activation whose slope follows from its input.

    Args:
        plan: the plan by which the input is stored. With the codec
            :class:`~razorlight.codecs.Slope`, the slope is stored if there is a ``curve``, and
            else the input in as many bits.
        x: the input.
        function: the activation.
        gradient: computes the input's gradient from the output's gradient and the input.
        inplace: Whether ``x`` is overwritten.
        curve: the name of the function in Slope and in kernels; None if they do not know it.
    """
    if curve is not None:
        if isinstance(plan.codec, Slope) and find(x, plan) is None:
            slopes = record_of(x, _SLOPES[plan.codec.bits, curve], x.dtype, channels_of(x))
            return activate(x, function, times_slope, inplace, slopes)
        function = Elementwise(curve)
        gradient = Elementwise(_GRADIENTS[curve], gradient)
    record = store(x, plan, overwritten=inplace, channels=channels_of(x))
    if plan.shares:  # in backward, the product that follows reads the value just before
        record = record.cached()
    out = activate(x, function, gradient, inplace, record)
    attach_record(out, record.then(function, returns_new=True, within_samples=True), plan)
    return out


def gelu(plan: LayerPlan, input: Tensor, approximate: str = "none") -> Tensor:
    """:func:`torch.nn.functional.gelu`, both forms; the input is stored.

    The codec must not prune: the slope at 0 is one half, so a pruned entry would pass a gradient.
    If the input has no record, the codec :class:`~razorlight.codecs.Slope` stores the slope in its
    place; the layers that follow then store their own inputs.
    """
    return _smooth(
        plan,
        input,
        partial(F.gelu, approximate=approximate),
        partial(aten.gelu_backward, approximate=approximate),
        curve="gelu" if approximate == "none" else "gelu_tanh",
    )


def silu(plan: LayerPlan, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.silu`; the input is stored as in :func:`gelu`."""
    return _smooth(plan, input, F.silu, aten.silu_backward, inplace, "silu")


def hardswish(plan: LayerPlan, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.hardswish`; the input is stored as in :func:`gelu`."""
    return _smooth(plan, input, F.hardswish, _hardswish_gradient, inplace, "hardswish")


def mish(plan: LayerPlan, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.mish`; the input is stored as in :func:`gelu`."""
    return _smooth(plan, input, F.mish, _mish_gradient, inplace)


def _mish_gradient(grad: Tensor, x: Tensor, grad_input: Tensor | None = None) -> Tensor:
    return aten.mish_backward(grad, x)


def softplus(plan: LayerPlan, input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """:func:`torch.nn.functional.softplus`; the input is stored as in :func:`gelu`."""
    if is_gpu(input.device) and torch.is_autocast_enabled(input.device.type):
        # autocast casts here; inside the autograd Function it would be too late
        input = input.to(torch.promote_types(input.dtype, torch.float32))
    function = partial(F.softplus, beta=beta, threshold=threshold)
    gradient = partial(aten.softplus_backward, beta=beta, threshold=threshold)
    return _smooth(plan, input, function, gradient)


def elu(plan: LayerPlan, input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.elu`; the input is stored as in :func:`gelu`."""
    return _exponential(plan, input, partial(F.elu, alpha=alpha), inplace, alpha)


def celu(plan: LayerPlan, input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.celu`; the input is stored as in :func:`gelu`."""
    function = partial(F.celu, alpha=alpha)
    return _exponential(plan, input, function, inplace, alpha, steepness=1 / alpha)


def selu(plan: LayerPlan, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.selu`; the input is stored as in :func:`gelu`."""
    return _exponential(plan, input, F.selu, inplace, _SELU_ALPHA, _SELU_SCALE)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # torch's own


def _exponential(
    plan: LayerPlan,
    x: Tensor,
    function: Callable[..., Tensor],
    inplace: bool,
    alpha: float,
    scale: float = 1.0,
    steepness: float = 1.0,
) -> Tensor:
    """``scale * x`` above zero, and ``scale * alpha * (exp(steepness * x) - 1)`` below."""
    gradient = partial(_exponential_gradient, options=(alpha, scale, steepness, False))
    return _smooth(plan, x, function, gradient, inplace)


def _exponential_gradient(
    grad: Tensor, x: Tensor, options: tuple[Any, ...], grad_input: Tensor | None = None
) -> Tensor:
    if grad_input is None:
        return aten.elu_backward(grad, *options, x)
    return aten.elu_backward(grad, *options, x, grad_input=grad_input)


def glu(plan: LayerPlan, input: Tensor, dim: int = -1) -> Tensor:
    """:func:`torch.nn.functional.glu`; the input is stored."""
    record = store(input, plan, channels=channels_of(input))
    function = partial(F.glu, dim=dim)
    out = activate(input, function, partial(_glu_gradient, dim=dim), False, record)
    within_samples = input.ndim > 1 and dim % input.ndim != 0
    attach_record(out, record.then(function, returns_new=True, within_samples=within_samples), plan)
    return out


def _glu_gradient(grad: Tensor, x: Tensor, dim: int, grad_input: Tensor | None = None) -> Tensor:
    return aten.glu_backward(grad, x, dim)  # it cannot overwrite its operands


def sigmoid(plan: LayerPlan, input: Tensor) -> Tensor:
    """:func:`torch.sigmoid`; the output is stored, because the slope follows from it."""
    return _bounded(plan, input, torch.sigmoid, aten.sigmoid_backward, lowest=0.0)


def tanh(plan: LayerPlan, input: Tensor) -> Tensor:
    """:func:`torch.tanh`; the output is stored, because the slope follows from it."""
    return _bounded(plan, input, torch.tanh, aten.tanh_backward, lowest=-1.0)


def _bounded(
    plan: LayerPlan,
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    lowest: float,
) -> Tensor:
    """An activation whose slope follows from its output, which lies from ``lowest`` to 1.

    If the input has a record, the output is derived from that record. If not, the output is stored.
    If the codec is the identity, the activation is left to torch, which keeps the output too.
    """
    known = find(x, plan)
    if known is not None:
        record = known.then(function, returns_new=True, within_samples=True)
    elif plan.codec.is_identity(x.dtype):
        return function(x)
    else:
        codec = plan.codec.of_values()
        record = record_of(x, codec, x.dtype, channels_of(x), of=function)
        # A level of the codec may lie outside of the range, where the slope has the wrong sign.
        record = record.then(partial(_within, lowest=lowest), returns_new=True, within_samples=True)
    if plan.shares:  # in backward, the product that follows reads the value just before
        record = record.cached()
    out = activate(x, function, gradient, False, record)
    attach_record(out, record, plan)
    return out


def _within(value: Tensor, lowest: float) -> Tensor:
    return value.clamp(lowest, 1.0)
