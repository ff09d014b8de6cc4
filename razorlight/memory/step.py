"""The memory of one training step, measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from razorlight._torch import tree_leaves
from razorlight.errors import RazorError
from razorlight.memory.in_backward import no_steps
from razorlight.memory.look import Peak
from razorlight.memory.meter import meter_for, model_tensors, storage_bytes


@dataclass(frozen=True)
class StepMemory:
    """The measured memory of one training step.

    Attributes:
        stored: bytes alive between forward and backward beside parameters, buffers and inputs:
            what autograd keeps, and the loss.
        peak: highest bytes alive during forward and backward, with parameters, buffers, inputs and
            gradients; without what an optimizer holds.
        explained: what sets the peak, if somebody looked.
    """

    stored: int
    peak: int
    explained: Peak | None = field(default=None, compare=False, repr=False)


def measure_step(model: nn.Module, step: Callable[[], Tensor], inputs: object = ()) -> StepMemory:
    """Run forward and backward once and measure their memory.

    The model is left as it was found: weights, gradients, buffers (BatchNorm's statistics) and
    torch's random state. On the CPU live storages are counted
    (:class:`~razorlight.memory.meter.StorageMeter`). On CUDA the allocator is read, and whatever
    else it holds is subtracted. There the step runs once before, so that the workspaces and
    searches of a first step do not count. The allocator's peak statistics, which the process
    shares, are reset.

    Within :func:`~razorlight.step_in_backward` each gradient is freed as soon as it is whole, as in
    training, and no parameter is stepped.

    Args:
        model: the model that ``step`` runs, on a CPU or CUDA device.
        step: runs forward and returns a scalar loss that requires grad.
        inputs: the tensors that ``step`` reads, in nested lists, tuples and dicts. They count to
            the peak but not as stored.

    Raises:
        RazorError: if ``step`` returns anything else, or the model is on another device.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
        >>> x = torch.randn(4, 8)
        >>> measure_step(model, lambda: model(x).sum(), x)
        StepMemory(stored=132, peak=...)
    """
    device = next(model.parameters()).device
    with no_steps(), left_as_found(model, inputs, device):
        if device.type == "cuda":
            loss_of(step).backward()
            _drop_gradients(model, inputs)
        with meter_for(device) as meter:
            meter.track(model_tensors(model), inputs)
            others = meter.live - storage_bytes(model_tensors(model), inputs)
            loss = loss_of(step)
            stored = meter.live - others - storage_bytes(model_tensors(model), inputs)
            loss.backward()
            return StepMemory(stored, meter.peak - others)


def loss_of(step: Callable[[], Tensor]) -> Tensor:
    """What ``step`` returns, if that is a loss.

    Raises:
        RazorError: if it is not.
    """
    loss = step()
    if isinstance(loss, Tensor) and loss.numel() == 1 and not loss.requires_grad:
        raise RazorError(
            "the loss requires no gradient: no parameter of the model is trained, or the step runs "
            "where gradients are off"
        )
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise RazorError(f"step() must return a scalar loss, got {got}")
    return loss


@contextmanager
def left_as_found(model: nn.Module, inputs: object, device: torch.device) -> Iterator[None]:
    """Leave gradients, buffers and torch's random state as they were before the context."""
    gradients = [(leaf, leaf.grad) for leaf in _leaves(model, inputs)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    _drop_gradients(model, inputs)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for leaf, gradient in gradients:
            leaf.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _drop_gradients(model: nn.Module, inputs: object) -> None:
    for leaf in _leaves(model, inputs):
        leaf.grad = None


def _leaves(model: nn.Module, inputs: object) -> list[Tensor]:
    """The tensors whose ``.grad`` backward writes."""
    candidates = [*model.parameters(), *tree_leaves(inputs)]
    return [t for t in candidates if isinstance(t, Tensor) and t.is_leaf and t.requires_grad]
