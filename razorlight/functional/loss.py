"""Losses that store the logits, or derive them, and run again in backward."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from razorlight.functional.backward import once_differentiable
from razorlight.records import Read, read_last
from razorlight.sharing import Storage, no_view, store
from razorlight.tensors import find_other_kind


class _Loss(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        loss: Callable[[Tensor, Sequence[Tensor]], Tensor],
        count: int,
        read: Read,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.loss, ctx.count, ctx.read = loss, count, read
        device = x.device.type
        ctx.autocast = partial(
            torch.autocast,
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
        )
        return no_view(loss(x, tensors[:count]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        others, stored = tensors[: ctx.count], tensors[ctx.count :]
        x = read_last(ctx.read, stored)[0].detach().requires_grad_()
        with torch.enable_grad(), ctx.autocast():
            loss = ctx.loss(x, others)
        return torch.autograd.grad(loss, x, grad)[0], *(None,) * (3 + len(tensors))


def run_loss(
    storage: Storage, loss: Callable[..., Tensor], args: Sequence[Any], kwargs: dict[str, Any]
) -> Tensor:
    """``loss(*args, **kwargs)``; of all that it computes only the logits are stored.

    The gradient is exact by the codec Dense. A loss written out keeps several maps as large as the
    logits, and torch's cross-entropy the logarithms of the probabilities; the logits are often held
    anyway, or are an enlarged map that follows from a smaller one. (Under ``torch.compile`` it is
    left to torch.)

    Args:
        storage: how the logits are stored.
        loss: gives the same each time, and a gradient to nothing but its arguments.
        args: with one tensor that needs a gradient, the logits, here or in ``kwargs``; if there are
            several, or others than plain tensors, the loss is left as it is.
        kwargs: the rest.
    """
    leaves, spec = tree_flatten((tuple(args), kwargs))
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    logits = [i for i in tensors if leaves[i].requires_grad]
    storable = find_other_kind(leaves) is None and all(leaves[i].numel() for i in tensors)
    if len(logits) != 1 or not storable or torch.compiler.is_compiling():
        return loss(*args, **kwargs)
    x = leaves[logits[0]]
    places = [*logits, *(i for i in tensors if i not in logits)]
    others = [leaves[i] for i in places[1:]]
    constants = [None if i in tensors else leaf for i, leaf in enumerate(leaves)]
    record = store(x, storage)
    again = partial(_call, loss, spec, constants, places)
    return _Loss.apply(x, again, len(others), record.read, *others, *record.tensors)


def _call(
    loss: Callable[..., Tensor],
    spec: TreeSpec,
    constants: Sequence[Any],
    places: Sequence[int],
    x: Tensor,
    others: Sequence[Tensor],
) -> Tensor:
    leaves = [*constants]
    for place, tensor in zip(places, (x, *others), strict=True):
        leaves[place] = tensor
    args, kwargs = tree_unflatten(leaves, spec)
    return loss(*args, **kwargs)
