"""The one autograd Function of this package, and the base class of the operations that it runs.

A function such as :func:`razorlight.functional.linear.linear` does three things. It finds or makes
the record of the value that backward needs (:func:`razorlight.records.store`). It runs its
operation with that record (:func:`run`). It attaches a record to the output, for the layers that
follow.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from razorlight._torch import as_attachable, as_no_view, is_traced
from razorlight.errors import RazorError
from razorlight.records import Reader, Record, forget_leaves

Gradients = Sequence[Tensor | None]
Saved = Sequence[Tensor | None]
Needs = Sequence[bool]


class Result(NamedTuple):
    """What the forward of an operation returns.

    Attributes:
        out: the output.
        saved: inputs that backward needs unchanged.
        by_products: tensors that forward computes besides the output, such as the statistics of a
            norm. Backward gets them after ``saved``, and the caller gets them after the output.
        stand_in: a tensor without memory that stands in for the first input, or None. The gradient
            that flows to it is added to that of the first input. The caller gets it last.
    """

    out: Tensor
    saved: tuple[Tensor | None, ...] = ()
    by_products: tuple[Tensor, ...] = ()
    stand_in: Tensor | None = None


class Operation(ABC):
    """A function of tensors, and its gradients.

    A subclass is a dataclass, which is not frozen: compilers of torch 2.11 lose the fields of one
    that is made while they trace. Its fields hold the arguments that are not tensors. The
    tensors are the inputs of :meth:`forward`.
    """

    @abstractmethod
    def forward(self, needs: Needs, *inputs: Any, **_: Any) -> Result:
        """Compute the output.

        Args:
            needs: for each input, whether it needs a gradient.
            inputs: tensors, or None.
        """

    def forward_in_place(self, x: Tensor, *others: Any, **_: Any) -> None:
        """Write the output to ``x``, the first input, if the operation can work in place."""
        raise NotImplementedError

    @abstractmethod
    def backward(self, grad: Tensor, record: Record, saved: Saved, needs: Needs) -> Gradients:
        """Compute the gradients of the inputs.

        Args:
            grad: the gradient of the output.
            record: the record that :func:`run` was given.
            saved: the inputs that :class:`Result` saved, and then the by-products.
            needs: for each input, whether it needs a gradient.

        Returns:
            For each input its gradient, or None.
        """


def run(operation: Operation, record: Record, *inputs: Tensor | None) -> Tensor:
    """Run an operation whose backward reads ``record``, and return the output."""
    out: Tensor = _apply(operation, record, inputs)
    return out


def run_in_place(operation: Operation, record: Record, x: Tensor, *others: Tensor) -> Tensor:
    """Run an operation as :func:`run` does, and write the output to ``x``."""
    if is_traced():
        # A compiled Function that overwrites its input may have a wrong gradient (torch 2.14). With
        # a copy the gradient is right, and the compiler makes the operation in-place again.
        return x.copy_(run(operation, record, x, *others))
    out: Tensor = _apply(operation, record, (x, *others), in_place=True)
    return out


def run_with_by_products(
    operation: Operation, record: Record, *inputs: Tensor | None
) -> tuple[Tensor, Sequence[Tensor]]:
    """Run an operation as :func:`run` does, and return the output, and what comes beside it."""
    out, *more = _apply(operation, record, inputs)
    return as_attachable(out), more


def _apply(operation: Operation, record: Record, inputs: Saved, in_place: bool = False) -> Any:
    options = (operation, record.reader, len(inputs), in_place)
    return _Razor.apply(*options, *inputs, *record.tensors)


class _Razor(Function):
    @staticmethod
    def forward(
        ctx: Any,
        operation: Operation,
        reader: Reader | None,
        count: int,
        in_place: bool,
        *tensors: Tensor | None,
    ) -> Any:
        ctx.set_materialize_grads(False)  # by-products would get gradients of zeros
        inputs, stored = tensors[:count], tensors[count:]
        ctx.operation, ctx.reader, ctx.count, ctx.stored = operation, reader, count, len(stored)
        ctx.has_stand_in = False
        if in_place:
            x, *others = inputs
            assert x is not None
            ctx.save_for_backward(*stored)
            ctx.mark_dirty(x)
            operation.forward_in_place(x, *others)
            return x
        needs = ctx.needs_input_grad[4 : 4 + count]
        out, saved, by_products, stand_in = operation.forward(needs, *inputs)
        ctx.has_stand_in = stand_in is not None
        ctx.save_for_backward(*saved, *by_products, *stored)
        if not by_products and stand_in is None:
            return as_no_view(out)
        ctx.mark_non_differentiable(*by_products)
        return as_no_view(out), *by_products, *(() if stand_in is None else (stand_in,))

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> Gradients:
        _begin_backward()
        needs = ctx.needs_input_grad[4 : 4 + ctx.count]
        gradients: Gradients = (None,) * ctx.count
        if grad is not None:
            tensors = ctx.saved_tensors
            first_stored = len(tensors) - ctx.stored
            record = Record(tuple(tensors[first_stored:]), ctx.reader)
            gradients = ctx.operation.backward(grad, record, tensors[:first_stored], needs)
        if ctx.has_stand_in and others[-1] is not None:
            first, *rest = gradients
            gradients = (others[-1] if first is None else first + others[-1], *rest)
        return None, None, None, None, *gradients, *(None,) * ctx.stored


def _begin_backward() -> None:
    """Refuse to be differentiated twice, and drop the records that are attached to leaves.

    torch's own ``once_differentiable`` does not refuse if the incoming gradient is a constant, as
    that of a sum is: the outgoing gradient is then a constant too. The gradient of a gradient
    penalty would be wrong without any message.

    Raises:
        RazorError: if backward runs with ``create_graph=True``.
    """
    if is_traced():  # a compiler refuses by itself, and nothing is attached to leaves
        return
    if torch.is_grad_enabled():
        raise RazorError(
            "create_graph=True: gradients through razor layers cannot be differentiated "
            "again; leave the network dense where that is needed (exclude=[...], restore_)"
        )
    forget_leaves()


def accumulate(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """``total + part`` in float32 or wider. ``total`` may be None, and is overwritten if not."""
    if part is None:
        return None
    wide = part.to(torch.promote_types(part.dtype, torch.float32))
    return wide if total is None else total.add_(wide)
