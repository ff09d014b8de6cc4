"""Losses. They run again in backward, from the record of the logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from razorlight._torch import TreeSpec, is_traced, tree_flatten, tree_unflatten
from razorlight.functional.operation import Gradients, Needs, Operation, Result, Saved, run
from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import Record, store
from razorlight.tensors import find_other_kind


def run_loss(
    plan: LayerPlan, loss: Callable[..., Tensor], args: Sequence[Any], kwargs: dict[str, Any]
) -> Tensor:
    """``loss(*args, **kwargs)``. Only the logits are stored, and the loss runs again in backward.

    The gradient is exact, because the codec of a loss is Dense. In torch, a loss in several
    operations keeps several maps as large as the logits, and cross-entropy keeps the logarithms of
    the probabilities. The logits are often in memory anyway, or are derived from a smaller map.
    Under ``torch.compile`` the loss is left to torch.

    Args:
        plan: the plan by which the logits are stored.
        loss: a function that returns the same each time, and has gradients only for its arguments.
        args: arguments of ``loss``. One tensor among ``args`` and ``kwargs`` needs a gradient: the
            logits. If several do, or any tensor is not plain, the loss is left to torch.
        kwargs: keyword arguments of ``loss``.
    """
    leaves, spec = tree_flatten((tuple(args), kwargs))
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    logits = [i for i in tensors if leaves[i].requires_grad]
    is_storable = find_other_kind(leaves) is None and all(leaves[i].numel() for i in tensors)
    if len(logits) != 1 or not is_storable or is_traced():
        return loss(*args, **kwargs)
    places = [*logits, *(i for i in tensors if i not in logits)]
    constants = [None if i in tensors else leaf for i, leaf in enumerate(leaves)]
    call = partial(_call, loss, spec, constants, places)
    x, *others = (leaves[i] for i in places)
    return run(_Loss(call, _autocast_of(x.device)), store(x, plan), x, *others)


def _call(
    loss: Callable[..., Tensor],
    spec: TreeSpec,
    constants: Sequence[Any],
    places: Sequence[int],
    *tensors: Tensor,
) -> Tensor:
    leaves = [*constants]
    for place, tensor in zip(places, tensors, strict=True):
        leaves[place] = tensor
    args, kwargs = tree_unflatten(leaves, spec)
    return loss(*args, **kwargs)


def _autocast_of(device: torch.device) -> Callable[[], torch.autocast]:
    """Returns a function that makes the context of autocast as it is now."""
    kind = device.type
    dtype, is_enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return partial(torch.autocast, kind, dtype, is_enabled)


@dataclass(eq=False)
class _Loss(Operation):
    """A loss of the logits and other tensors.

    Attributes:
        loss: a function of the logits and the other tensors.
        autocast: a function that makes the autocast context in which the forward ran.
    """

    loss: Callable[..., Tensor]
    autocast: Callable[[], torch.autocast]

    def forward(self, needs: Needs, x: Tensor, *others: Tensor) -> Result:
        return Result(self.loss(x, *others), others)

    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        x = record.take()[0].detach().requires_grad_()
        with torch.enable_grad(), self.autocast():
            loss = self.loss(x, *saved)
        return *torch.autograd.grad(loss, x, grad), *(None for _ in saved)
