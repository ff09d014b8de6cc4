"""Cross-entropy that stores the logits, or derives them, and no probabilities."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from razorlight.functional.backward import once_differentiable
from razorlight.records import Read
from razorlight.sharing import Storage, no_view, store


class _CrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        options: dict[str, Any],
        read: Read,
        *stored: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(target, weight, *stored)
        ctx.options, ctx.read, ctx.stored = options, read, len(stored)
        return no_view(F.cross_entropy(x, target, weight, **options))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        target, weight, *stored = ctx.saved_tensors
        x = ctx.read(*stored).detach().requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(x, target, weight, **ctx.options)
        return torch.autograd.grad(loss, x, grad)[0], *(None,) * (4 + ctx.stored)


def cross_entropy(
    storage: Storage,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """:func:`torch.nn.functional.cross_entropy`; ``input`` is stored, and exact by the codec Dense.

    torch keeps the logarithms of the probabilities besides, as large as the logits, which who calls
    it often holds anyway, or which are an enlarged map that follows from a smaller one. (Under
    ``torch.compile`` it is left to torch.)

    Args:
        storage: how ``input`` is stored.
        input: logits ``(batch, classes, ...)`` or ``(classes,)``.
        target: class ids ``(batch, ...)``, or probabilities in the shape of ``input``, which get
            no gradient here.
        weight: ``(classes,)``.
        size_average: as in torch, like the rest.
        ignore_index: a class id that does not count.
        reduce: as in torch.
        reduction: "mean", "sum" or "none".
        label_smoothing: in [0, 1].
    """
    options: dict[str, Any] = {
        "size_average": size_average,
        "ignore_index": ignore_index,
        "reduce": reduce,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    if target.requires_grad or torch.compiler.is_compiling():
        return F.cross_entropy(input, target, weight, **options)
    record = store(input, storage)
    return _CrossEntropy.apply(input, target, weight, options, record.read, *record.tensors)
