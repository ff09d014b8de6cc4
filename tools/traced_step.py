"""A traced training step of razorlight, with its codecs as operators or as kernels."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from sys import maxsize
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from networks import Batch, Trainee
from step_trace import Call, StepTrace, fused
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from razorlight import RazorError, tensors
from razorlight.codecs import Codec, Uniform, kernels, operators
from razorlight.codecs.kernels import Codes, Pooling
from razorlight.codecs.packing import PLANES
from razorlight.functional import batch_norm as norms
from razorlight.functional.operation import Needs
from razorlight.memory.meter import model_tensors
from razorlight.records import caching, encoding


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
        with _as_on_a_gpu(), booked, trace:
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
    with patch.multiple(operators, _run_encode=encode, _run_decode=decode):
        yield


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Store fake tensors as a GPU would store real ones: whole, where a CPU cuts chunks."""
    batch_norm = _with_wide_statistics(norms.batch_norm_with_statistics)
    layer_norm = _with_wide_statistics(torch.native_layer_norm)
    with (
        patch.object(tensors, "_PLAIN", (*tensors._PLAIN, FakeTensor)),
        patch.object(encoding, "unshared", _unshared),
        patch.object(operators, "_CHUNK_ENTRIES", maxsize),
        patch.object(caching, "_DERIVED_CHUNK_ENTRIES", maxsize),
        patch.object(norms, "batch_norm_with_statistics", batch_norm),
        patch.object(torch, "native_layer_norm", layer_norm),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        yield


def _with_wide_statistics(norm: Callable[..., Any]) -> Callable[..., Any]:
    """``norm``, with statistics in float32, as a GPU has them. A CPU has narrower ones."""

    def changed(x: Tensor, *more: Any) -> tuple[Tensor, Tensor, Tensor]:
        out, *statistics = norm(x, *more)
        wide = torch.promote_types(x.dtype, torch.float32)
        mean, rstd = (one.new_empty(one.shape, dtype=wide) for one in statistics)
        return out, mean, rstd

    return changed


def _unshared(part: Tensor, x: Tensor) -> Tensor:
    """As in razorlight._torch, which compares places in memory: fake tensors have none."""
    return part.clone() if part.untyped_storage() is x.untyped_storage() else part


@contextmanager
def _launched(trace: StepTrace) -> Iterator[None]:
    """Let the kernels run, which compute nothing here. Each is booked as a call."""
    uniform, entrywise, norm, max_pool = _kernel_modules()
    row_gradients = trace.as_kernel("row_gradients", _row_gradients, 2)  # and torch's sum
    sums = trace.as_kernel("channel_sums", _channel_sums, 2)
    of_input = trace.as_kernel("channel_gradients", _channel_gradients)

    def channel_gradients(*given: Any) -> list[Tensor | None]:
        *_, needs = given
        return [of_input(*given[:-1]) if needs[0] else None, *sums(*given)]

    decode = trace.as_kernel("decode", _decode)
    with (
        patch.object(kernels, "can_launch", lambda like: True),
        patch.multiple(uniform, encode=partial(_encode, trace), decode=decode),
        patch.multiple(entrywise, encode=trace.as_kernel("encode", _encode_entries), decode=decode),
        patch.multiple(norm, row_gradients=row_gradients, channel_gradients=channel_gradients),
        patch.multiple(
            max_pool,
            pool=trace.as_kernel("max_pool", _pool),
            gradient=trace.as_kernel("max_pool_gradient", _gradient_of_pool),
            pick=trace.as_kernel("max_pool_pick", _pick),
        ),
    ):
        yield


def _kernel_modules() -> tuple[Any, ...]:
    try:
        from razorlight.codecs.kernels import entrywise, max_pool, norm, uniform
    except ImportError as error:
        raise RazorError("the kernels need Triton: pip install triton") from error
    return uniform, entrywise, norm, max_pool


def _encode(trace: StepTrace, codec: Uniform, x: Tensor, *statistics: Tensor) -> tuple[Tensor, ...]:
    """Three kernels read the value: for the scales of tokens, for the ends, and for the codes."""
    with trace.in_kernels():
        output = codec.encode(x)
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


def _encode_entries(codec: Codec, x: Tensor) -> tuple[Tensor, ...]:
    return codec.encode(x)


def _decode(codec: Codec, *stored: Tensor, shape: Any, dtype: Any, steps: Any = ()) -> Tensor:
    return stored[0].new_empty(shape, dtype=dtype)


def _row_gradients(
    codes: Codes, grad: Tensor, weight: Tensor | None, rstd: Tensor, needs: Needs, _: bool
) -> list[Tensor | None]:
    width = grad.numel() // rstd.numel()
    of_input = [torch.empty_like(grad) if needs[0] else None]
    return of_input + [rstd.new_empty(width) if is_needed else None for is_needed in needs[1:]]


def _channel_sums(
    codes: Codes, grad: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, needs: Needs
) -> list[Tensor | None]:
    return [rstd.new_empty(rstd.numel()) if is_needed else None for is_needed in needs[1:]]


def _channel_gradients(
    codes: Codes, grad: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor
) -> Tensor:
    return torch.empty_like(grad)


def _pool(x: Tensor, how: Pooling, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    out = _pick(x, x, how, sizes)
    return out, x.new_empty(-(-out.numel() * how.bits // 8), dtype=torch.uint8)


def _gradient_of_pool(grad: Tensor, packed: Tensor, how: Pooling, shape: torch.Size) -> Tensor:
    return grad.new_empty(shape)


def _pick(value: Tensor, packed: Tensor, how: Pooling, sizes: Sequence[int]) -> Tensor:
    return value.new_empty(*value.shape[:2], *sizes)
