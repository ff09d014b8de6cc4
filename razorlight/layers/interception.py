"""How the functions that a forward calls are replaced while the forward runs.

A :class:`torch.overrides.TorchFunctionMode` intercepts every torch function that is called with
tensors. So the forward of a layer runs as it is written, whoever wrote it, and only the tensors
that its functions store are other ones. Functions that move entries carry records to their output.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from razorlight._torch import as_attachable, is_traced, without_torch_function
from razorlight.functional import FUNCTIONS, MOVES
from razorlight.functional.attention import multi_head_attention_forward
from razorlight.functional.spellings import TorchFunction
from razorlight.layers.registry import name_of
from razorlight.layers.seen import Seen
from razorlight.planning import LayerPlan
from razorlight.records import carry_joined, carry_record
from razorlight.tensors import find_other_kind


class ReplacedFunctions(TorchFunctionMode):
    """A context in which some torch functions store by the plan of a layer.

    Args:
        functions: the torch functions that are replaced.
        plan: the plan of the layer whose forward runs.
        seen: takes note of the functions and tensors that the layer meets.
    """

    def __init__(self, functions: frozenset[TorchFunction], plan: LayerPlan, seen: Seen) -> None:
        super().__init__()
        self.functions, self.plan, self.seen = functions, plan, seen

    def __torch_function__(
        self, func: TorchFunction, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():  # inside the autograd Function of an inner layer
            return func(*args, **kwargs)
        if func is Tensor.unflatten:  # a compiler that traces into it meets a second such method
            func = torch.unflatten
        if func is F.multi_head_attention_forward:
            with self:
                return multi_head_attention_forward(*args, **kwargs)
        is_replaced, is_move = func in self.functions, func in MOVES
        if not is_replaced and not is_move:
            return func(*args, **kwargs)
        with without_torch_function():  # the modes of outer layers need not see what happens here
            operands = (*args, *kwargs.values())
            is_replaced = is_replaced and _may_store(operands)
            kind = find_other_kind(operands)
            if kind is not None and is_replaced:
                self.seen.leave_to_torch(kind)
            is_replaced = is_replaced and kind is None and kwargs.get("out") is None
            if is_replaced:
                out = self._replace(func, args, kwargs)
        if not is_replaced:
            out = func(*args, **kwargs)
        if kind is None and is_move and args and self.plan.shares:
            with without_torch_function():  # an input given by keyword gets no record
                return _carry(self.plan, func, out, *args, **kwargs)
        return out

    def _replace(self, func: TorchFunction, args: Any, kwargs: Any) -> Any:
        if not is_traced():
            self.seen.called.add(name_of(func))
        return FUNCTIONS[func](self.plan, *args, **kwargs)


def _may_store(operands: Iterable[Any]) -> bool:
    """Whether an operand needs a gradient, and no operand is empty."""
    needs_gradient = False
    for x in operands:
        if isinstance(x, Tensor):
            if not x.numel():
                return False
            needs_gradient = needs_gradient or x.requires_grad
    return needs_gradient


def _carry(
    plan: LayerPlan, func: TorchFunction, out: Any, x: Any, *args: Any, **kwargs: Any
) -> Any:
    """Carry the record of ``x`` to ``out = func(x, *args, **kwargs)``, or to each part of it."""
    move = partial(_move, func=func, args=args, kwargs=kwargs)
    if not isinstance(x, Tensor):
        within_samples = func is torch.cat and _dim_of_cat(out, *args, **kwargs) != 0
        carry_joined(x, out, plan, move, within_samples)
        return out
    if isinstance(out, Tensor):
        carry_record(x, out, move, _is_within_samples(func, x, *args, **kwargs))
        return out
    parts = tuple(as_attachable(part) for part in out)
    for i, part in enumerate(parts):
        carry_record(x, part, partial(move, part=i))
    return parts


def _dim_of_cat(out: Tensor, dim: int = 0, **_: Any) -> int:
    return dim % out.ndim


def _is_within_samples(func: TorchFunction, x: Tensor, pad: Any = None, *_: Any, **__: Any) -> bool:
    """Whether ``func`` is known to move entries only within their sample (dim 0)."""
    whole = (F.interpolate, F.pixel_shuffle, F.pixel_unshuffle)
    return func in whole or (func is F.pad and len(pad) < 2 * x.ndim)


def _move(
    x: Tensor | Sequence[Tensor],
    func: TorchFunction,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    part: int | None = None,
) -> Tensor:
    if func is Tensor.view and args and not isinstance(args[0], torch.dtype):
        func = Tensor.reshape  # a value that is computed again may lie otherwise in memory
    moved = func(x, *args, **kwargs)
    return moved if part is None else moved[part]
