"""What sets the peak of a training step that runs on a CPU."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.optim import Optimizer

from razorlight.errors import RazorError
from razorlight.memory.in_backward import no_steps
from razorlight.memory.look import Look, Peak, look_twice
from razorlight.memory.step import left_as_found, loss_of


def find_peak(
    model: nn.Module,
    step: Callable[[], Tensor],
    inputs: object = (),
    optimizer: Optimizer | None = None,
) -> Peak:
    """Run forward and backward twice on a CPU, and say what sets the peak.

    The first run finds the peak, and the second one looks around when memory has grown to it. The
    model is left as it was found, as by :func:`~razorlight.memory.measure_step`. The optimizer does
    not step; a :class:`~razorlight.memory.StepEstimate` counts its step too.

    Args:
        model: the model that ``step`` runs, on a CPU.
        step: runs forward and returns a scalar loss that requires grad. Both runs must do the same.
        inputs: the tensors that ``step`` reads, in nested lists, tuples and dicts.
        optimizer: the optimizer whose state counts too.

    Raises:
        RazorError: if ``step`` returns anything else, the model is on another device, or the second
            run needs less memory than the first.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU())
        >>> x = torch.randn(256, 64)
        >>> peak = find_peak(model, lambda: model(x).sum(), x)
        >>> peak.instant
        'in the backward of 1 (aten.gelu_backward)'
        >>> peak.nbytes == sum(peak.kinds.values())
        True
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise RazorError(f"what sets the peak is found on a CPU only, the model is on {device}")
    state = [] if optimizer is None else [*optimizer.state.values()]

    def run(look: Look) -> None:
        loss = loss_of(step)
        look.note_stored()
        loss.backward()

    with no_steps():
        around = partial(left_as_found, model, inputs, device)
        return look_twice(model, inputs, state, run, around)
