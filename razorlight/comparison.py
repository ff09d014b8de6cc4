"""A training step of one's own network, in several ways side by side."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.optim import Optimizer

from razorlight.conversion import Plan, make_plan, razor_
from razorlight.errors import RazorError
from razorlight.memory.budget import DENSE
from razorlight.memory.in_backward import step_in_backward
from razorlight.memory.look import Look, look_twice
from razorlight.memory.meter import MIB, meter_for, model_tensors, storage_bytes
from razorlight.memory.shortage import is_shortage
from razorlight.memory.step import loss_of
from razorlight.planning import RECIPES

CHECKPOINTING = "checkpointing"
"""The way in which blocks run again from their inputs, stored as they are, and all else is dense:
activation checkpointing as torch has it."""

WAYS = (DENSE, CHECKPOINTING, *RECIPES)
"""The ways in which a network can be trained."""

Step = Callable[[nn.Module, Any], Tensor]
"""Runs forward of a model on a batch, and returns the loss."""


@dataclass(frozen=True)
class Compared:
    """What was measured of a step in one way.

    Attributes:
        way: one of :data:`WAYS`, or another name that ``convert`` knows.
        stored: bytes between forward and backward; None if the memory did not suffice, as for the
            other figures.
        peak: bytes of the whole step, with the optimizer's state and its step.
        instant: what runs when memory is at its peak; None on a GPU.
        seconds: of a step; the median.
        cosines: by parameter, that of its gradient to the dense one. Matrices and kernels alone
            are in here, and those whose dense gradient is zero are not.
        cosine: that of the whole gradient to the dense one.
    """

    way: str
    stored: int | None = None
    peak: int | None = None
    instant: str | None = None
    seconds: float | None = None
    cosines: Mapping[str, float] = field(default_factory=dict)
    cosine: float | None = None

    @property
    def lowest(self) -> tuple[str, float] | None:
        """The parameter whose gradient deviates most, and its cosine."""
        if not self.cosines:
            return None
        name = min(self.cosines, key=self.cosines.__getitem__)
        return name, self.cosines[name]


def convert_as(model: nn.Module, way: str, **chosen: Any) -> Plan | None:
    """Convert a model in place as a way trains it.

    Args:
        model: a dense model.
        way: one of :data:`WAYS`.
        **chosen: ``include``, ``exclude`` and ``overrides`` of :func:`razorlight.razor_`.

    Returns:
        The plan; None if nothing is converted.

    Raises:
        RazorError: for an unknown way, or a network in which nothing can be converted.
    """
    if way == DENSE:
        return None
    if way != CHECKPOINTING:
        return razor_(model, way, **chosen)
    recipe = {"name": "checkpoint", "block": "dense"}
    patterns = {key: chosen[key] for key in ("include", "exclude") if key in chosen}
    plan = make_plan(model, recipe, **patterns).only_blocks()
    return razor_(model, plan=plan) if plan.layers else None


def compare(
    model: nn.Module,
    step: Step,
    batch: Any,
    optimizer: Callable[[nn.Module], Optimizer],
    ways: Sequence[str] = WAYS,
    steps: int = 3,
    in_backward: bool = False,
    convert: Callable[[nn.Module, str], object] = convert_as,
) -> Iterator[Compared]:
    """Train one batch in each way, from the same weights, one way after the other.

    The gradients of the first step are compared with those of a dense step. Then some whole steps
    are timed, and the memory of further ones is measured.

    Args:
        model: dense, in training mode, on a CPU or CUDA device. It stays as it is.
        step: runs forward, and returns the loss. Random numbers are the same for all ways.
        batch: the tensors that ``step`` reads, in nested lists, tuples and dicts, on the device of
            the model.
        optimizer: makes the optimizer of the model that it is given.
        ways: see :func:`convert_as`.
        steps: the number of steps that are timed, after one that is not.
        in_backward: Whether the optimizer steps within backward
            (:func:`~razorlight.step_in_backward`).
        convert: converts a copy of the model in place, as a way trains it.

    Yields:
        What was measured, way by way. Without memory for a dense step, the gradients are compared
        with those of the recipe ``exact``, which are the same to rounding.

    Raises:
        RazorError: for a way that is unknown, or a step that returns no loss.

    Example:
        >>> import torch
        >>> layers = [torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 1)]
        >>> model, x = torch.nn.Sequential(*layers), torch.randn(512, 64)
        >>> def step(model, x):
        ...     return model(x).square().mean()
        >>> def optimizer(model):
        ...     return torch.optim.AdamW(model.parameters())
        >>> dense, balanced = compare(model, step, x, optimizer, ways=("dense", "balanced"))
        >>> balanced.stored < dense.stored / 4
        True
        >>> balanced.cosine > 0.98
        True
    """
    reference: dict[str, Tensor] | None = None
    for way in (DENSE, "exact"):
        if reference is None:
            with _shortages():
                reference = _Trainee(model, step, batch, convert, way).gradients()
    for way in ways:
        measured: dict[str, Any] = {}
        with _shortages():
            trainee = _Trainee(model, step, batch, convert, way)
            if reference is not None:
                measured |= compare_gradients(trainee.gradients(), reference)
            trainee.begin(optimizer, in_backward)
            measured |= {"seconds": trainee.seconds(steps), **trainee.memory()}
        yield Compared(way, **measured)


def recommendation(rows: Sequence[Compared], memory: int | None = None) -> str:
    """A sentence that says which of dense and the recipes to take.

    A way is faithful if the cosine of its whole gradient is at least .98.

    Args:
        rows: what was compared.
        memory: the bytes that the peak should fit into. The fastest faithful way that fits is
            taken. Without it the fastest one is taken of those whose peak is the lowest, to 3 %.
    """
    measured = [row for row in rows if row.peak is not None and row.way != CHECKPOINTING]
    if not measured:
        return "No way fits into the memory of this device: take a smaller batch."
    least = min(measured, key=_peak)
    if memory is not None:
        measured = [row for row in measured if _peak(row) <= memory]
        if not measured:
            return (
                f"No way fits into {memory / MIB:.0f} MiB; {least.way} has the lowest peak, "
                f"{_peak(least) / MIB:.1f} MiB: take a smaller batch."
            )
    faithful = [row for row in measured if row.cosine is None or row.cosine >= _FAITHFUL]
    if not faithful:
        return (
            f"No way keeps a cosine of {_FAITHFUL}; look at the layers by "
            "`razorlight explain --check_gradients`."
        )
    if memory is not None:
        why = f"is the fastest that fits into {memory / MIB:.0f} MiB"
    else:
        lowest = min(map(_peak, faithful))
        faithful = [row for row in faithful if _peak(row) <= _NEAR * lowest]
        why = "is the fastest of those with the lowest peak"
    best = min(faithful, key=lambda row: row.seconds or 0)
    how = "--razor false" if best.way == DENSE else f"--razor.recipe {best.way}"
    return f"Take {best.way} ({how}): of the ways with a cosine of {_FAITHFUL}, it {why}."


_FAITHFUL = 0.98
_NEAR = 1.03
"""Peaks that differ by less count as equal."""


def _peak(row: Compared) -> int:
    return row.peak or 0


def gradients(model: nn.Module, step: Step, batch: Any) -> dict[str, Tensor]:
    """The gradients of one batch, by the name of their parameter. The model keeps none.

    Args:
        model: the model that runs.
        step: runs forward, and returns the loss. Random numbers are the same in each call.
        batch: what it reads.
    """
    _loss(model, step, batch).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def _loss(model: nn.Module, step: Step, batch: Any) -> Tensor:
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        return loss_of(lambda: step(model, batch))


def compare_gradients(
    found: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The cosines of gradients to those of a reference, as fields of :class:`Compared`.

    Args:
        found: gradients by the name of their parameter.
        reference: others, of the same names and shapes.
    """
    weights = [name for name, g in reference.items() if name.endswith("weight") and g.ndim > 1]
    cosines = {
        name: cosine([found[name]], [reference[name]])
        for name in weights
        if reference[name].any()  # those before a norm that begins at zero have none
    }
    whole = cosine([found[name] for name in reference], [*reference.values()])
    return {"cosines": cosines, "cosine": whole}


def cosine(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Of two lists of tensors, each taken as one vector, in float64."""
    one, other = (torch.cat([t.flatten() for t in part]).double() for part in (some, others))
    return min(1.0, float(cosine_similarity(one, other, dim=0, eps=0)))


@contextmanager
def _shortages() -> Iterator[None]:
    """Leave the context quietly where memory does not suffice."""
    try:
        yield
    except RuntimeError as error:
        if not is_shortage(error):
            raise


class _Trainee:
    """A copy of a model, converted, which trains one batch again and again.

    Args:
        model: is copied.
        step: runs forward, and returns the loss.
        batch: what it reads.
        convert: converts the copy as ``way`` trains it.
        way: a name that ``convert`` knows.
    """

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        batch: Any,
        convert: Callable[[nn.Module, str], object],
        way: str,
    ) -> None:
        self.model = deepcopy(model)
        convert(self.model, way)
        self.step, self.batch = step, batch
        self.device = next(model.parameters()).device

    def gradients(self) -> dict[str, Tensor]:
        """The gradient of each parameter that has one."""
        return gradients(self.model, self.step, self.batch)

    def begin(self, optimizer: Callable[[nn.Module], Optimizer], in_backward: bool) -> None:
        """Make the optimizer that :meth:`seconds` and :meth:`memory` run."""
        self.optimizer, self.in_backward = optimizer(self.model), in_backward

    def seconds(self, steps: int) -> float:
        """The median of so many whole steps, after one that is not counted."""
        durations = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            self._whole_step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            durations.append(time.perf_counter() - start)
        return statistics.median(durations[1:])

    def memory(self) -> dict[str, Any]:
        """What a further step stores, its peak and, on a CPU, what sets the peak."""
        with meter_for(self.device) as meter:
            meter.track(self._held())
            others = meter.live - storage_bytes(self._held())
            stored: list[int] = []

            def note_stored() -> None:
                stored.append(meter.live - others - storage_bytes(self._held()))

            self._whole_step(note_stored)
        return {"stored": stored[0], "peak": meter.peak - others, "instant": self._instant()}

    def _held(self) -> object:
        return model_tensors(self.model), self.batch, self.optimizer.state

    def _instant(self) -> str | None:
        if self.device.type != "cpu":
            return None

        def run(look: Look) -> None:
            self._whole_step(look.note_stored, look.stepping)

        with suppress(RazorError):  # steps that are not alike
            state = [*self.optimizer.state.values()]
            return look_twice(self.model, self.batch, state, run).instant
        return None

    def _whole_step(
        self,
        note_stored: Callable[[], None] = lambda: None,
        stepping: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        loss = _loss(self.model, self.step, self.batch)
        note_stored()
        self.optimizer.zero_grad()  # where Lightning does it
        with step_in_backward(self.optimizer) if self.in_backward else nullcontext():
            loss.backward()
        with stepping():
            self.optimizer.step()
