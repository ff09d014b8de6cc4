"""The learning rate over a run, step by step."""

from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    SequentialLR,
)

from razorlight.errors import RazorError


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up, then the rate stays, or falls to 0 with the last step of the run.

    All parameter groups keep their ratios. A run that is shorter than the warm-up ends within it.

    Attributes:
        shape: course after the warm-up: ``constant``; ``cosine`` (Loshchilov and Hutter 2017, half
            a period); or ``poly``, ``(1 - progress) ** power`` (Chen et al. 2018).
        warmup_steps: optimizer steps until the full rate, the first of them at
            ``1 / (warmup_steps + 1)`` of it; 0 begins with the full rate.
        power: exponent of ``poly``.

    Raises:
        RazorError: for a negative ``warmup_steps`` or ``power``.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = Schedule("poly", warmup_steps=1, power=1.0).build(optimizer, steps=5)
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
    warmup_steps: int = 0
    power: float = 0.9

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "power"):
            if (value := getattr(self, name)) < 0:
                raise RazorError(f"schedule: {name} is {value}; it must be 0 or more")

    def build(self, optimizer: Optimizer, steps: float) -> LRScheduler:
        """Make torch's scheduler, to be stepped with the optimizer.

        Args:
            optimizer: optimizer whose rates are set.
            steps: number of steps of the whole run, as Lightning's
                ``trainer.estimated_stepping_batches``: infinite or negative if the run has no end.

        Raises:
            RazorError: if the rate should fall to 0 and the run has no end.
        """
        main = self._after_warmup(optimizer, steps)
        if not self.warmup_steps:
            return main
        first = 1 / (self.warmup_steps + 1)
        warmup = LinearLR(optimizer, start_factor=first, total_iters=self.warmup_steps)
        return SequentialLR(optimizer, [warmup, main], milestones=[self.warmup_steps])

    def _after_warmup(self, optimizer: Optimizer, steps: float) -> LRScheduler:
        if self.shape == "constant":
            return ConstantLR(optimizer, factor=1)
        if not 0 <= steps < float("inf"):
            raise RazorError(
                f"schedule: {self.shape} falls to 0 at the end of the run, and this one has none; "
                "set trainer.max_epochs or trainer.max_steps, or shape: constant"
            )
        length = max(1, int(steps) - self.warmup_steps)
        if self.shape == "cosine":
            return CosineAnnealingLR(optimizer, length)
        return PolynomialLR(optimizer, length, self.power)
