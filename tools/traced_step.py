"""A traced training step of razorlight, with its codecs as operators or as kernels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from networks import Batch, Trainee
from step_trace import Call, StepTrace, fused
from torch import Tensor

from razorlight import RazorError
from razorlight.codecs import Uniform, kernels, operators
from razorlight.codecs.kernels import Codes
from razorlight.codecs.packing import PLANES
from razorlight.functional.operation import Needs
from razorlight.memory.meter import model_tensors
from razorlight.memory.stand_in import as_on_a_gpu


class Step(NamedTuple):
    """A training step without its update.

    Attributes:
        eager: what is launched, operator by operator.
        compiled: what is launched if a compiler joins light operators.
        peak: the most bytes alive, with parameters, buffers, gradients and the batch.
    """

    eager: list[Call]
    compiled: list[Call]
    peak: int


def trace_step(trainee: Trainee, batch: Batch, has_kernels: bool = False) -> Step:
    """Trace forward and backward.

    Args:
        trainee: a network whose tensors are fake.
        batch: fake images and targets. Both fakes belong to the FakeTensorMode that is active.
        has_kernels: Whether the kernels of razorlight run. If not, the operators of a codec are
            launched one by one.

    Raises:
        RazorError: if the size does not suit the network, the network looks at the values of its
            tensors, or kernels are asked for and Triton is not installed.
    """
    trace = StepTrace()
    booked = _launched(trace) if has_kernels else _codecs_one_by_one(trace)
    trainee.optimizer.zero_grad()
    trace.memory.track(model_tensors(trainee.model), batch)
    try:
        with as_on_a_gpu(), booked, trace:
            trainee.loss(batch).backward()
    except (RuntimeError, AssertionError) as error:
        raise RazorError(
            f"the step cannot be traced ({str(error).partition(chr(10))[0]}); take another size, "
            "or a network that does not look at the values of its tensors"
        ) from error
    return Step(trace.calls, fused(trace.calls, trace.alive()), trace.memory.peak)


@contextmanager
def _codecs_one_by_one(trace: StepTrace) -> Iterator[None]:
    encode, decode = trace.opaque(operators._run_encode), trace.opaque(operators._run_decode)
    with (
        patch.object(kernels, "can_launch", lambda like: False),
        patch.multiple(operators, _run_encode=encode, _run_decode=decode),
    ):
        yield


@contextmanager
def _launched(trace: StepTrace) -> Iterator[None]:
    """Book each kernel as a call. On fake tensors it computes nothing."""
    from razorlight.codecs.kernels import entrywise, max_pool, norm, uniform  # need Triton

    def as_kernels(module: Any, *names: str, launches: int = 1) -> dict[str, Any]:
        return {name: trace.as_kernel(name, getattr(module, name), launches) for name in names}

    with (
        patch.multiple(uniform, encode=_encode(trace), **as_kernels(uniform, "decode")),
        patch.multiple(entrywise, **as_kernels(entrywise, "encode", "decode")),
        patch.multiple(
            norm,
            channel_gradients=_channel_gradients(trace),
            **as_kernels(norm, "row_gradients", launches=2),  # the second is torch's sum
        ),
        patch.multiple(max_pool, **as_kernels(max_pool, "pool", "gradient", "pick")),
    ):
        yield


def _encode(trace: StepTrace) -> Callable[..., Any]:
    """Three kernels read the value: for the scales of tokens, for the ends, and for the codes."""
    from razorlight.codecs.kernels import uniform

    run = uniform.encode

    def encode(codec: Uniform, x: Tensor, *statistics: Tensor) -> tuple[Tensor, ...]:
        with trace.in_kernels():
            output = run(codec, x, *statistics)
        planes, scaled = len(PLANES[codec.bits]), codec.scales_tokens(x.shape)
        packed, ends, scales = output[:planes], output[planes : len(output) - scaled], output[-1:]
        known = [x, *statistics]
        if scaled:
            trace.book_kernel("find_scales", known, scales)
            known += scales
        trace.book_kernel("find_ends", known, ends)
        trace.book_kernel("encode", [*known, *ends], packed)
        trace.memory.track(output)
        return output

    return encode


def _channel_gradients(trace: StepTrace) -> Callable[..., Any]:
    """One kernel reads codes and gradient for the sums, and then one for the input's gradient."""

    def gradients(
        codes: Codes, grad: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, needs: Needs
    ) -> tuple[Tensor | None, ...]:
        read = [t for t in (*codes.tensors, grad, weight, mean, rstd) if t is not None]
        with trace.in_kernels():
            d_x = torch.empty_like(grad) if needs[0] else None
            sums = [rstd.new_empty(rstd.numel()) if needed else None for needed in needs[1:]]
        written = [one for one in sums if one is not None]
        trace.book_kernel("channel_sums", read, written, 2)  # and torch's sum
        if d_x is not None:
            trace.book_kernel("channel_gradients", read, [d_x])
        trace.memory.track(d_x, sums)
        return d_x, *sums

    return gradients
