"""What the backward passes of all Functions have in common."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from razorlight.errors import RazorError
from razorlight.sharing import forget_leaves

Gradients = tuple[Tensor | None, ...]
Pullback = Callable[[Tensor], Sequence[Tensor | None]]


def once_differentiable(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Make a Function's ``backward`` refuse to be differentiated itself.

    torch's own decorator leaves the gradient a constant where the one that comes in is one, as that
    of a sum is: the gradient of a gradient penalty would then be wrong, without a word.

    Raises:
        RazorError: when the gradient is asked for with ``create_graph=True``.
    """

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Tensor) -> Gradients:
        if not torch.compiler.is_compiling():  # which refuses by itself
            if torch.is_grad_enabled():
                raise RazorError(
                    "create_graph=True: gradients through razor layers cannot be differentiated "
                    "again; leave the network dense where that is needed (exclude=[...], restore_)"
                )
            forget_leaves()
        with torch.no_grad():
            return backward(ctx, *grads)

    return once


def vjp(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, Pullback]:
    """:func:`torch.func.vjp`, which refuses to work where hooks on saved tensors are active.

    Args:
        function: of ``inputs``.
        inputs: at which to differentiate, detached here.

    Returns:
        The output, and what takes its gradient to those of ``inputs``.
    """
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    with torch.enable_grad():
        out = function(*inputs)
    return out.detach(), functools.partial(torch.autograd.grad, out, inputs)


def accumulate(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """``total + part``, where there is one, in float32 at least; ``total`` is overwritten."""
    if part is None:
        return None
    wide = part.to(torch.promote_types(part.dtype, torch.float32))
    return wide if total is None else total.add_(wide)
