"""The learning rate over a run, step by step."""

from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from typing_extensions import override

from razorlight.errors import RazorError


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up, then the rate stays, or falls to 0 with the last step of the run.

    All parameter groups keep their ratios. A run that is shorter than the warm-up ends within it.
    A run that is resumed with another length goes on at the rate that the new length gives.

    Attributes:
        shape: course after the warm-up: ``constant``; ``cosine`` (Loshchilov and Hutter 2017, half
            a period); or ``poly``, ``(1 - progress) ** power`` (Chen et al. 2018).
        warmup: optimizer steps until the full rate, as a number (500) or as a share of the run
            (0.1); 0 begins with the full rate. The first of n steps takes ``1 / (n + 1)`` of it.
        power: exponent of ``poly``.

    Raises:
        RazorError: for a negative ``warmup`` or ``power``, or a fraction above 1.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = Schedule("poly", warmup=1, power=1.0).build(optimizer, steps=5)
        >>> for _ in range(5):
        ...     print(scheduler.get_last_lr())
        ...     optimizer.step()
        ...     scheduler.step()
        [0.5]
        [1.0]
        [0.75]
        [0.5]
        [0.25]
    """

    shape: Literal["constant", "cosine", "poly"] = "cosine"
    warmup: int | float = 0
    power: float = 0.9

    def __post_init__(self) -> None:
        for name in ("warmup", "power"):
            if (value := getattr(self, name)) < 0:
                raise RazorError(f"schedule: {name} is {value}; it must be 0 or more")
        if self.warmup > 1 and self._is_share:
            raise RazorError(
                f"schedule: warmup is {self.warmup}; give a whole number of steps, or a share of "
                "the run in 0..1"
            )

    @property
    def _is_share(self) -> bool:
        return isinstance(self.warmup, float) and self.warmup > 0

    def build(self, optimizer: Optimizer, steps: float) -> LRScheduler:
        """Make torch's scheduler, to be stepped with the optimizer.

        Args:
            optimizer: optimizer whose rates are set.
            steps: number of steps of the whole run, as Lightning's
                ``trainer.estimated_stepping_batches``: infinite or negative if the run has no end.

        Raises:
            RazorError: if the rate should fall to 0, or the warm-up is a share of the run, and the
                run has no end.
        """
        if self.shape != "constant":
            _require_end(steps, f"{self.shape} falls to 0 at the end of the run", "shape: constant")
        if self._is_share:
            what = f"a warm-up of {self.warmup} is a share of the run"
            _require_end(steps, what, "a number of steps as warmup")
        warmup = round(self.warmup * steps) if self._is_share else int(self.warmup)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if self.shape == "constant":
                return 1.0
            progress = min(1.0, (step - warmup) / max(1.0, steps - warmup))
            if self.shape == "cosine":
                return (1 + cos(pi * progress)) / 2
            return float((1 - progress) ** self.power)

        return _Course(optimizer, factor)


class _Course(LambdaLR):
    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # the optimizer's own state has the rates of the run before, which may have been shorter
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate


def _require_end(steps: float, reason: str, instead: str) -> None:
    if not 0 <= steps < float("inf"):
        raise RazorError(
            f"schedule: {reason}, and this one has none; "
            f"set trainer.max_epochs or trainer.max_steps, or {instead}"
        )
