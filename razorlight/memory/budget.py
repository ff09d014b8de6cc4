"""A plan that keeps the peak of a step within a budget, at the least time and error."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from razorlight.codecs import Codec
from razorlight.conversion import Conversion, Plan, make_plan, restore_
from razorlight.conversion.plan import Line
from razorlight.errors import RazorError
from razorlight.layers import find_blocks
from razorlight.memory.estimate import StepEstimate, copy_on_meta
from razorlight.memory.look import BACKWARD, FORWARD
from razorlight.memory.meter import MIB
from razorlight.memory.profile import Profile

DENSE = "dense"
WAYS = (DENSE, "exact", "balanced", "compact", "checkpoint")
"""The ways in which a part of a network can be trained: dense, and by these recipes."""

_STEM, _TAIL = "before the blocks", "beside the blocks"
_LEFT_DENSE = "dense: there is memory for it"
_TRIES = 8
_NEAR = 0.97
"""The share of the budget that is near enough."""


@dataclass(frozen=True)
class PlanWithin:
    """A plan within a budget, and what it needs.

    Attributes:
        plan: the plan.
        ways: by part of the network, one of :data:`WAYS`.
        limit: the budget in bytes.
        peak: the peak of a step by the plan, estimated in bytes.
        dense_peak: the peak of a dense step, estimated in bytes.
    """

    plan: Plan
    ways: Mapping[str, str]
    limit: int
    peak: int
    dense_peak: int

    def __str__(self) -> str:
        """A line on the plan."""
        if not self.plan.layers:
            free = (self.limit - self.dense_peak) / MIB
            return (
                f"dense fits into {self.limit / MIB:.1f} MiB, {free:.1f} MiB are free (estimated)"
            )
        counts = Counter(self.ways.values())
        ways = ", ".join(f"{counts[way]} {way}" for way in WAYS if counts[way])
        return (
            f"a peak of {self.peak / MIB:.1f} MiB within {self.limit / MIB:.1f} MiB, dense "
            f"{self.dense_peak / MIB:.1f} MiB (estimated); parts: {ways}"
        )


def plan_within(
    budget: int | float,
    model: nn.Module,
    step: Callable[[nn.Module, Any], Tensor],
    inputs: object,
    optimizer: Callable[[nn.Module], Optimizer] | None = None,
    in_backward: bool = False,
    keeps_gradients: bool = False,
    device: str = "cpu",
    **chosen: Any,
) -> PlanWithin:
    """Plan how each block of a network stores, so that the peak of a step stays within a budget.

    Each block is trained in one of five :data:`WAYS`, and so is what stands before and beside the
    blocks. What each way stores, its own peak and its work are estimated on tensors without memory
    (:class:`StepEstimate`); the error of its codecs is measured on noise. Of all plans whose peak
    fits, an integer program (HiGHS, by SciPy) finds the one with the least work and error, where an
    error of one percent of the values counts as much as one percent of the step's work. The peak of
    the plan is then estimated as a whole, and the plan is made anew until its peak fits.

    Args:
        budget: bytes; or a share, in (0, 1), of the peak of a dense step.
        model: see :class:`StepEstimate`, as for the next arguments.
        step: runs forward, and returns the loss.
        inputs: the tensors that ``step`` reads.
        optimizer: makes the optimizer.
        in_backward: Whether the optimizer steps within backward.
        keeps_gradients: Whether the gradients of the step before stay, as when they accumulate.
        device: "cpu" or "cuda", where the step will run.
        **chosen: ``include``, ``exclude`` and ``overrides``, as for :func:`razorlight.razor_`.

    Returns:
        The plan. It converts nothing if the dense step fits.

    Raises:
        RazorError: if no plan fits; the message gives the smallest budget for which there is one.

    Example:
        >>> import torch
        >>> from razorlight import razor_
        >>> blocks = [torch.nn.TransformerEncoderLayer(64, 2, 256) for _ in range(4)]
        >>> model, x = torch.nn.Sequential(*blocks), torch.randn(128, 8, 64)
        >>> def step(model, x):
        ...     return model(x).mean()
        >>> found = plan_within(0.6, model, step, x)
        >>> found.peak <= 0.6 * found.dense_peak
        True
        >>> plan = razor_(model, plan=found.plan)
    """
    arguments = (step, optimizer, in_backward, keeps_gradients, device)
    model = copy_on_meta(model)
    restore_(model)
    dense = StepEstimate(model, *arguments).memory(inputs).peak
    limit = int(budget * dense) if isinstance(budget, float) and budget < 1 else int(budget)
    if dense <= limit:
        return PlanWithin(Plan(()), {}, limit, dense, dense)
    search = _Search(model, arguments, inputs, chosen)
    best, peak = search.within(limit)
    return PlanWithin(search.compose(best), best, limit, peak, dense)


class _Search:
    """The parts of a network, what each way costs them, and the plans that are made of them."""

    def __init__(
        self,
        model: nn.Module,
        arguments: tuple[Any, ...],
        inputs: object,
        chosen: Mapping[str, Any],
    ) -> None:
        self._model = model
        self._arguments = arguments
        self._inputs = inputs
        self.plans = {way: make_plan(self._model, way, **chosen) for way in WAYS[1:]}
        lines = [line.left_dense(_LEFT_DENSE) for line in self.plans["exact"].lines]
        self.plans[DENSE] = Plan(tuple(lines))
        self.profiles = {way: self._estimate(self.plans[way]).profile(inputs) for way in WAYS}
        blocks = find_blocks(self._model)
        order = [*dict.fromkeys(layer for _, layer in self.profiles[DENSE].peaks)]
        self._part_of = _parts(self._model, blocks, order)
        met = dict.fromkeys([_STEM, *(self._part_of[layer] for layer in order)])
        self.parts = [*(part for part in met if part != _TAIL), _TAIL]
        self.stored = self._by_part(lambda profile: profile.stored_by)
        self.alive = np.array([*self._rows()])
        self.cost = self._costs()

    def within(self, limit: int) -> tuple[Mapping[str, str], int]:
        """The ways of the least cost whose peak is at most ``limit``, and this peak.

        The sum of the parts is not quite the peak of the whole. So the target of the sum is moved
        until the peak is near the limit.
        """
        target, ways = self._solve(None)
        peak = self._peak_of(ways)
        if peak > limit:
            raise RazorError(
                f"no plan keeps the peak within {limit / MIB:.1f} MiB; the smallest budget for "
                f"this batch is {peak / MIB + 0.1:.1f} MiB"
            )
        best, best_peak = ways, peak
        fits, too_large, target = target, inf, max(target, float(limit))
        for _ in range(_TRIES):
            total, ways = self._solve(target)
            peak = self._peak_of(ways)
            if best_peak < peak <= limit:
                best, best_peak = ways, peak
            if _NEAR * limit <= peak <= limit:
                break
            if peak <= limit:
                fits, moved = max(fits, target), target + limit - peak
            else:  # below what these ways sum up to, so that others come
                too_large, moved = min(too_large, target), total + limit - peak
            target = moved if fits < moved < too_large else (fits + min(too_large, 2 * limit)) / 2
        return best, best_peak

    def compose(self, choice: Mapping[str, str]) -> Plan:
        """The plan that trains each part in the way that was chosen for it."""
        lines: dict[str, Line] = {}
        for way in dict.fromkeys(choice.values()):
            for line in self.plans[way].lines:
                if choice[self._part_of[line.name]] == way:
                    lines[line.name] = line
        names = [name for name, _ in self._model.named_modules()]
        return Plan(tuple(lines[name] for name in names if name in lines))

    def _peak_of(self, ways: Mapping[str, str]) -> int:
        return self._estimate(self.compose(ways)).memory(self._inputs).peak

    def _estimate(self, plan: Plan) -> StepEstimate:
        model = deepcopy(self._model)
        Conversion(model, plan).apply()
        return StepEstimate(model, *self._arguments)

    def _by_part(self, values: Callable[[Profile], Mapping[Any, float]]) -> Any:
        """A table of parts and ways."""
        table = np.zeros((len(self.parts), len(WAYS)))
        for column, way in enumerate(WAYS):
            for layer, value in values(self.profiles[way]).items():
                table[self.parts.index(self._part_of[layer]), column] += value
        return table

    def _costs(self) -> Any:
        """By part and way: the work beyond dense, and the error, as shares of the dense step."""
        work = self._by_part(lambda profile: profile.work)
        total = work[:, 0].sum()
        errors = np.array([_error(self.plans[way]) for way in WAYS])
        return (work - work[:, :1]) / total + errors * (work[:, :1] / total)

    def _solve(self, target: float | None) -> tuple[float, dict[str, str]]:
        """The choice of the least cost within ``target`` bytes; of the least bytes if it is None.

        Returns:
            The bytes at the peak, as the sum of the parts has it, and the way of each part.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import

        parts, ways = self.stored.shape
        rows = self.alive
        once = np.kron(np.eye(parts), np.ones(ways))
        if target is None:  # the last variable is the peak
            costs = np.append(np.zeros(parts * ways), 1.0)
            peak = LinearConstraint(np.column_stack([rows, -np.ones(len(rows))]), ub=0.0)
        else:
            costs = np.append(self.cost.ravel(), 0.0)
            peak = LinearConstraint(np.column_stack([rows, np.zeros(len(rows))]), ub=target / MIB)
        one = LinearConstraint(np.column_stack([once, np.zeros(parts)]), lb=1.0, ub=1.0)
        integrality = np.append(np.ones(parts * ways), 0.0)
        bounds = Bounds(0, np.append(np.ones(parts * ways), np.inf))
        found = milp(costs, constraints=[one, peak], integrality=integrality, bounds=bounds)
        if found.x is None:  # the least that is possible
            return self._solve(None)
        chosen = found.x[:-1].reshape(parts, ways).argmax(1)
        names = {part: WAYS[way] for part, way in zip(self.parts, chosen, strict=True)}
        return float((rows @ found.x[:-1]).max() * MIB), names

    def _rows(self) -> Iterator[Any]:
        """For each phase and part: the MiB that each choice adds to what is alive there."""
        for phase in (FORWARD, BACKWARD):
            for place, part in enumerate(self.parts):
                before = place + (phase == BACKWARD)
                row = np.zeros_like(self.stored)
                row[:before] = self.stored[:before]
                peaks = np.array([self._peak(way, phase, part) for way in WAYS])
                row[place] += peaks - self.stored[:before].sum(0)
                yield row.ravel() / MIB

    def _peak(self, way: str, phase: str, part: str) -> int:
        peaks = self.profiles[way].peaks.items()
        found = [
            size for (when, layer), size in peaks if (when, self._part_of[layer]) == (phase, part)
        ]
        return max(found, default=0)


def _parts(model: nn.Module, blocks: set[str], order: list[str | None]) -> dict[str | None, str]:
    """By the name of each layer, its part: a block, or what stands before or beside the blocks."""
    parts: dict[str | None, str] = {None: _TAIL}
    for name, _ in model.named_modules():
        around = [block for block in blocks if f"{name}.".startswith(f"{block}.")]
        parts[name] = around[0] if around else _TAIL
    for layer in order:
        if parts[layer] != _TAIL:
            break
        if layer:
            parts[layer] = _STEM
    return parts


def _error(plan: Plan) -> float:
    """The error of a plan's codecs on normal noise, as a share of the noise; their mean."""
    codecs = [line.plan.codec for line in plan.lines if line.plan is not None]
    errors = {codec: _error_of(codec) for codec in set(codecs)}
    return float(np.mean([errors[codec] for codec in codecs])) if codecs else 0.0


def _error_of(codec: Codec) -> float:
    noise = torch.randn(4, 256, 64, generator=torch.Generator().manual_seed(0))
    read = codec.decode(*codec.encode(noise), shape=noise.shape, dtype=noise.dtype)
    return float((read - noise).norm() / noise.norm())
