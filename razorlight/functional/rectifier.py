"""Rectifiers: their slope has two values. The gate is stored in bits, or read from the output."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.codecs import Elementwise, Mask, Uniform
from razorlight.functional.activation import activate, channels_of, times_slope
from razorlight.functional.autocast import cast, matmul_dtype
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import NOTHING, Record, attach_record, find, join, record_of, store

aten = torch.ops.aten


def _rectify(
    plan: LayerPlan,
    x: Tensor,
    function: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    inplace: bool,
    passes: Callable[[Tensor], Tensor],
    by_mask: Callable[..., Tensor] = times_slope,
    preserves: Literal["signs", "zeros"] | None = None,
) -> Tensor:
    """A piecewise linear activation, with one slope where the input ``passes`` and one elsewhere.

    A mask stores the gate, whether an entry passes, in one bit. With the codec
    :class:`~razorlight.codecs.Uniform`, the gate is read from the record of the output, which the
    following product needs anyway, if there is such a record or the codec can make one.

    Args:
        plan: the plan of the layer.
        x: the input.
        function: the activation.
        gradient: computes the input's gradient from the output's gradient and the output.
        inplace: Whether ``x`` is overwritten.
        passes: computes the gate from the input.
        by_mask: computes the input's gradient from the output's gradient and the mask (0 and 1). By
            default the mask holds the slopes.
        preserves: the property that the record must preserve so that the output shows the gate. The
            codec of a rectifier preserves "zeros". None if the output never shows the gate.
    """
    known = find(x, plan)
    # the codec of a layer that may also call a curved activation may be one that shows no gate
    by_value = preserves is not None and isinstance(plan.codec, Uniform)
    if known is None and by_value and preserves == "zeros":
        known = record_of(x, plan.codec.preserving("zeros"), x.dtype, channels_of(x))
    # A value that a product recomputes from a stored value may lie on the other side of the gate.
    by_value = by_value and known is not None and not known.known_reader.products_away
    output = known and known.then(
        _in_place(function) if known.known_reader.makes_new else function,
        returns_new=True,
        within_samples=True,
    )
    if by_value and output:
        record = output = output.cached()
    else:
        record, gradient = mask_of(passes, x), by_mask
    out = activate(x, function, gradient, inplace, record)
    attach_record(out, output, plan)
    return out


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    in_place = partial(function, inplace=True)
    if isinstance(function, Elementwise):
        return Elementwise(function.name, in_place)
    return in_place


def _is_positive(x: Tensor) -> Tensor:
    return x > 0


def mask_of(passes: Callable[[Tensor], Tensor], x: Tensor) -> Record:
    """The record of ``passes(x)``, read as 0 and 1 in the dtype of ``x``."""
    return record_of(x, Mask(), x.dtype, channels_of(x), of=passes)


def _passes(x: Tensor, gradient: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Where torch's own ``gradient`` is not zero.

    On a CPU this is several times faster than comparisons.
    """
    return gradient(x.new_ones(()).expand_as(x), x).bool()


def _leaky_gradient(
    grad: Tensor, passes: Tensor, slope: float, grad_input: Tensor | None = None
) -> Tensor:
    return torch.where(passes != 0, grad, grad * slope)


def relu(plan: LayerPlan, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.relu`; the gate is stored, or the output."""
    gradient = partial(aten.threshold_backward, threshold=0)
    return _rectify(
        plan,
        input,
        Elementwise("relu"),
        Elementwise("relu_gradient", gradient),
        inplace,
        partial(_passes, gradient=gradient),
        preserves="zeros",
    )


def leaky_relu(
    plan: LayerPlan, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor:
    """:func:`torch.nn.functional.leaky_relu`; stored as in :func:`relu`."""
    invertible = negative_slope > 0  # if not, the output does not show the gate
    return _rectify(
        plan,
        input,
        partial(F.leaky_relu, negative_slope=negative_slope),
        partial(aten.leaky_relu_backward, negative_slope=negative_slope, self_is_result=invertible),
        inplace,
        _is_positive,
        partial(_leaky_gradient, slope=negative_slope),
        preserves="signs" if invertible else None,
    )


def hardtanh(
    plan: LayerPlan,
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.hardtanh`, and so ReLU6; one bit an entry is stored, exactly.

    No codec preserves on which side of both edges an entry lies, so the output is never stored.
    """
    return _rectify(
        plan,
        input,
        partial(F.hardtanh, min_val=min_val, max_val=max_val),
        times_slope,
        inplace,
        partial(
            _passes, gradient=partial(aten.hardtanh_backward, min_val=min_val, max_val=max_val)
        ),
    )


def hardsigmoid(plan: LayerPlan, input: Tensor, inplace: bool = False) -> Tensor:
    """:func:`torch.nn.functional.hardsigmoid`; one bit an entry is stored, exactly."""
    passes = partial(_passes, gradient=aten.hardsigmoid_backward)
    return _rectify(plan, input, F.hardsigmoid, times_slope, inplace, passes, _sixth_where)


def _sixth_where(grad: Tensor, passes: Tensor, grad_input: Tensor | None = None) -> Tensor:
    return times_slope(grad, passes).mul_(1 / 6)


def prelu(plan: LayerPlan, input: Tensor, weight: Tensor) -> Tensor:
    """:func:`torch.nn.functional.prelu`; the gate is stored in one bit an entry, and the input.

    The gradient of ``input`` is exact. If ``weight`` is frozen, the input is not stored.

    Args:
        plan: the plan by which ``input`` is stored for the gradient of ``weight``.
        input: ``(batch, channels, ...)``, or of any shape for a single weight.
        weight: ``(channels,)`` or ``(1,)``.
    """
    # autocast would cast too late, inside the autograd Function, and not at all in backward
    if torch.is_autocast_enabled(input.device.type):
        dtype = matmul_dtype(input)
        input, weight = cast(input, dtype), cast(weight, dtype)
    if weight.requires_grad:
        value = store(input, plan, channels=channels_of(input))
    else:
        value = find(input, plan) or NOTHING
    needed = value if weight.requires_grad else NOTHING
    both = join(mask_of(_is_positive, input), needed)
    out = run(_PReLU(), both, input, weight)
    if value.reader:
        attach_record(
            out, value.then(F.prelu, weight, returns_new=True, within_samples=input.ndim > 1), plan
        )
    return out


@dataclass(eq=False)
class _PReLU(Operation):
    def forward(self, needs: Needs, x: Tensor, weight: Tensor) -> Result:
        return Result(F.prelu(x, weight), (weight,))

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        (weight,) = saved
        assert weight is not None
        mask, value = record.read()
        is_positive = mask != 0
        slope = weight if grad.ndim < 2 else weight.view(-1, *(1,) * (grad.ndim - 2))
        d_x = torch.where(is_positive, grad, grad * slope) if needs[0] else None
        d_weight = None
        if value is not None:
            product = (grad * value).masked_fill_(is_positive, 0.0)
            d_weight = product.sum_to_size(slope.shape if grad.ndim else ()).view_as(weight)
        return d_x, d_weight
