"""The memory of a training step, estimated on tensors that have shapes and take no memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from sys import maxsize
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from razorlight._torch import FakeTensorMode, TorchDispatchMode, is_fake, tree_map
from razorlight.errors import RazorError
from razorlight.memory.in_backward import step_in_backward
from razorlight.memory.look import Look, Peak, look_twice
from razorlight.memory.profile import Profile
from razorlight.memory.stand_in import GRANULARITY, as_on_a_gpu, step_as_on_a_gpu
from razorlight.memory.step import StepMemory, loss_of

DEVICES = ("cpu", "cuda")
"""The devices for which a step can be estimated."""


class StepEstimate:
    """Estimates what a training step stores, its peak, and what sets the peak.

    The step runs on fake tensors. They have shapes, take no memory and compute nothing, so that a
    network of any size is estimated in seconds. The figures are those that
    :func:`~razorlight.memory.measure_step` and :func:`~razorlight.memory.find_peak` would measure.
    With an optimizer the peak also holds its state, and its step follows backward. The gradients of
    the step before are then alive until forward has ended, as in Lightning's loop.

    For a CUDA device the step runs as on a GPU: with the kernels of this package, in the dtypes of
    autocast there, with optimizers that step all parameters at once, and each tensor rounded up to
    512 bytes, as by CUDA's allocator. What the allocator cannot use, and the workspaces of cuDNN
    and cuBLAS, are not seen.

    A step that decides by the values of its tensors cannot be estimated; numbers that it reads, to
    log them, do no harm. One whose path depends on chance may be estimated on another path. The
    scratch memory of torch's own kernels is not seen, such as what an LSTM keeps on a CPU.

    Args:
        model: any model. It is copied, and stays as it is. Make a large one within
            ``torch.device("meta")``, where it takes no memory.
        step: runs forward of the model that it is given, on the inputs that it is given, and
            returns a scalar loss that requires grad.
        optimizer: makes the optimizer of the model that it is given.
        in_backward: Whether the optimizer steps within backward
            (:func:`~razorlight.step_in_backward`).
        keeps_gradients: Whether the gradients of the step before stay, as while they are
            accumulated over batches, or in the buckets of DistributedDataParallel.
        device: "cpu", or "cuda". Autocast is entered for "cpu" within ``step`` in both cases.

    Raises:
        RazorError: for another device, or without Triton for "cuda". When a method runs, if
            ``step`` returns anything else, the step cannot run on fake tensors, or the optimizer
            cannot step within backward.

    Example:
        >>> import torch
        >>> from razorlight import razor_
        >>> with torch.device("meta"):
        ...     layers = [torch.nn.Linear(8192, 8192), torch.nn.GELU(), torch.nn.Linear(8192, 8192)]
        ...     model = torch.nn.Sequential(*layers)
        ...     x = torch.empty(16384, 8192)
        >>> def step(model, x):
        ...     return model(x).mean()
        >>> def optimizer(model):
        ...     return torch.optim.AdamW(model.parameters())
        >>> StepEstimate(model, step).stored(x) // 2**20  # MiB that are never allocated
        1024
        >>> plan = razor_(model)
        >>> StepEstimate(model, step).stored(x) // 2**20
        66
        >>> StepEstimate(model, step, optimizer).peak(x[:64]).instant
        "in the optimizer's step (aten.div)"
    """

    def __init__(
        self,
        model: nn.Module,
        step: Callable[[nn.Module, Any], Tensor],
        optimizer: Callable[[nn.Module], Optimizer] | None = None,
        in_backward: bool = False,
        keeps_gradients: bool = False,
        device: str = "cpu",
    ) -> None:
        if device not in DEVICES:
            raise RazorError(f"device: {device!r} is none of {', '.join(DEVICES)}")
        self._is_gpu = device == "cuda"
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)  # such as a layer's constants
        with self._mode:
            fakes = _emptied(model, "cpu")
        self._model = deepcopy(model, fakes)
        self._step, self._in_backward = step, in_backward
        self._keeps_gradients = keeps_gradients
        with _as_errors_of_ours():
            self._optimizer = None if optimizer is None else optimizer(self._model)
            if self._is_gpu and self._optimizer:
                step_as_on_a_gpu(self._optimizer)
            self._find_as_in_a_run()

    def _find_as_in_a_run(self) -> None:
        """Make the state and the gradients that every step but the first one finds."""
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        if self._optimizer is not None:
            self._optimizer.step()
        if self._in_backward or not (self._keeps_gradients or self._optimizer):
            self._model.zero_grad()

    def stored(self, inputs: object) -> int:
        """The bytes alive between forward and backward beside parameters, buffers and inputs.

        Args:
            inputs: the tensors that ``step`` reads, in nested lists, tuples and dicts. Their values
                do not matter, and they may be on the device ``meta``.
        """
        given = self._fake(inputs)
        with self._watched(), self._meter(given) as look:
            self._forward(look, given)
            return look.stored

    def memory(self, inputs: object) -> StepMemory:
        """What is stored, and the peak.

        Args:
            inputs: see :meth:`stored`.
        """
        given = self._fake(inputs)
        with self._watched(), self._meter(given) as look:
            self._run(look, given)
            return StepMemory(look.stored, look.peak)

    def peak(self, inputs: object) -> Peak:
        """What sets the peak. This takes more than twice as long as :meth:`memory`.

        Args:
            inputs: see :meth:`stored`.
        """
        given = self._fake(inputs)
        with self._watched():
            return look_twice(
                self._model,
                given,
                self._state(),
                lambda look: self._run(look, given),
                granularity=self._granularity(),
            )

    def profile(self, inputs: object) -> Profile:
        """The memory and the work of each layer.

        Args:
            inputs: see :meth:`stored`.
        """
        given = self._fake(inputs)
        with self._watched():
            profile = Profile(self._model, given, self._state(), maxsize, self._granularity())
            with profile.watching():
                self._run(profile, given)
            return profile

    def _fake(self, inputs: object) -> Any:
        with self._mode:
            return tree_map(_as_fake, inputs)

    def _meter(self, inputs: object) -> Look:
        return Look(self._model, inputs, self._state(), maxsize, self._granularity())

    def _granularity(self) -> int:
        return GRANULARITY if self._is_gpu else 1

    @contextmanager
    def _watched(self) -> Iterator[None]:
        with _as_errors_of_ours(), as_on_a_gpu() if self._is_gpu else nullcontext():
            yield

    def _state(self) -> list[Any]:
        return [] if self._optimizer is None else [*self._optimizer.state.values()]

    def _forward(self, look: Look, inputs: object) -> Tensor:
        look.track([p.grad for p in self._model.parameters()])
        with self._mode, _Numbers():
            loss = loss_of(lambda: self._step(self._model, inputs))
        look.note_stored()
        return loss

    def _run(self, look: Look, inputs: object) -> None:
        optimizer, in_backward = self._optimizer, self._in_backward
        loss = self._forward(look, inputs)
        if not self._keeps_gradients:
            self._model.zero_grad()
        # outside of the mode, because optimizers read how many steps they have made
        with step_in_backward(optimizer) if optimizer and in_backward else nullcontext():
            loss.backward()
        if optimizer is not None:
            with look.stepping():
                optimizer.step()
        elif not self._keeps_gradients:
            self._model.zero_grad()


@contextmanager
def _as_errors_of_ours() -> Iterator[None]:
    try:
        yield
    except RazorError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise RazorError(
            f"the step cannot be estimated ({str(error).partition(chr(10))[0]}); take a size that "
            "suits the network, and a step that does not decide by the values of its tensors"
        ) from error


def copy_on_meta(model: nn.Module, shared: Iterable[object] = ()) -> nn.Module:
    """A copy of a model whose parameters and buffers are on the device meta, and take no memory.

    Args:
        model: stays as it is.
        shared: objects in the model that are not copied.
    """
    memo = {id(each): each for each in shared} | _emptied(model, "meta")
    return deepcopy(model, memo)


def _emptied(model: nn.Module, device: str) -> dict[int, Any]:
    """By id of each parameter and buffer, an empty one like it on ``device``."""
    emptied: dict[int, Any] = {}
    for parameter in model.parameters():
        if is_lazy(parameter):
            raise RazorError(
                f"{type(model).__name__} has layers without weights, which the first batch makes; "
                "run one through the network, then estimate"
            )
        empty = torch.empty_like(parameter, device=device)
        emptied[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    return emptied | {id(b): torch.empty_like(b, device=device) for b in model.buffers()}


class _Numbers(TorchDispatchMode):
    """Takes a number that is read out of a fake tensor for 1. A step may log it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        is_read = func.overloadpacket is torch.ops.aten._local_scalar_dense and is_fake(args[0])
        if not is_read or args[0].dtype is torch.bool:  # which decides on a path
            return func(*args, **kwargs or {})
        return 1.0 if args[0].is_floating_point() else 1


def _as_fake(leaf: Any) -> Any:
    return torch.empty_like(leaf, device="cpu") if isinstance(leaf, Tensor) else leaf
