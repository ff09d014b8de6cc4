"""Numbers of images, such as an age or a weight, with the networks of timm."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from rich.table import Table
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score

from razorlight.errors import RazorError
from razorlight.protocols import Measured
from razorlight.tasks.networks import timm_network
from razorlight.tasks.reporting import Report, ReportingTask

Loss = Literal["smooth_l1", "mse", "l1"]

_LOSSES: dict[str, type[nn.Module]] = {
    "smooth_l1": nn.SmoothL1Loss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
}


class RegressionTask(ReportingTask):
    """Fine-tune a timm network to tell one number of each image, or several.

    Batches are ``(images, targets)``: float32 (B, 3, H, W) and float32 (B, targets). The network
    gives the targets less their mean over the training data, divided by their standard deviation,
    so that each counts alike in the loss and none needs a rate of its own. A fit takes mean and
    deviation from the data module (``target_moments()``), and checkpoints hold them. ``predict``
    gives numbers in the units of the data, float32 (B, targets).

    Logs ``train/loss``, and for val and test ``loss`` and, in the units of the data and as a mean
    over the targets, ``MAE`` (mean absolute error), ``RMSE`` and ``R2``, which is 1 for a perfect
    prediction and 0 for that of the mean. ``validate`` and ``test`` end with a table of these for
    each target, and write ``{val,test}_targets.csv`` into the run's folder.

    Args:
        model: a name of ``timm.list_models()``, such as ``vit_tiny_patch16_224``.
        num_targets: how many numbers there are; the command line takes it from the data.
        weights: see :class:`ClassificationTask`.
        model_args: further arguments of the network, such as ``img_size`` or ``drop_path_rate``.
        loss: loss of the standardised targets: ``smooth_l1``, which forgives outliers, ``mse`` or
            ``l1``.
        in_channels: see :class:`ClassificationTask`.
        **kwargs: see :class:`FineTuningTask`.

    Raises:
        RazorError: for an unknown model or loss, weights that cannot be had or do not fit, or
            arguments that :class:`FineTuningTask` refuses; in a fit, if the data module does not
            know its targets.

    Example:
        >>> import torch
        >>> task = RegressionTask("resnet10t", num_targets=2)
        >>> images = torch.randn(2, 3, 64, 64)
        >>> task.predictions(task(images)).shape
        torch.Size([2, 2])
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        model: str,
        num_targets: int,
        weights: str = "none",
        model_args: dict[str, Any] | None = None,
        loss: Loss = "smooth_l1",
        in_channels: int = 3,
        **kwargs: Any,
    ) -> None:
        if loss not in _LOSSES:
            raise RazorError(f"loss: there is no {loss!r}, only {', '.join(_LOSSES)}")
        super().__init__(
            timm_network(model, num_targets, weights, model_args or {}, in_channels),
            MetricCollection(
                {
                    "MAE": MeanAbsoluteError(),
                    "RMSE": _MeanRootSquaredError(squared=False, num_outputs=num_targets),
                    "R2": _R2Score(),
                }
            ),
            MetricCollection(
                {
                    "MAE": MeanAbsoluteError(num_outputs=num_targets),
                    "RMSE": MeanSquaredError(squared=False, num_outputs=num_targets),
                    "R2": _R2Score(multioutput="raw_values"),
                }
            ),
            num_targets,
            **kwargs,
        )
        self._loss = _LOSSES[loss]()
        # persistent: without them, nobody could tell what the outputs of the network mean
        self.register_buffer("target_mean", torch.zeros(num_targets))
        self.register_buffer("target_std", torch.ones(num_targets))

    def setup(self, stage: str) -> None:
        """Before a fit, take mean and standard deviation of the targets from the data.

        Raises:
            RazorError: if the data module does not know them.
        """
        if stage == TrainerFn.FITTING:
            self.standardise(self.trainer.datamodule)  # type: ignore[attr-defined]

    def standardise(self, data: object) -> None:
        """Take mean and standard deviation of the targets from the data.

        Raises:
            RazorError: if the data module does not know them.
        """
        if not isinstance(data, Measured):
            raise RazorError(
                f"RegressionTask asks the data module for target_names and target_moments(), and "
                f"{type(data).__name__} has none; add them, or take RegressionCSV"
            )
        mean, std = data.target_moments()
        self.target_mean.copy_(torch.tensor(mean))
        self.target_std.copy_(torch.tensor(std))
        moments = zip(data.target_names, mean, std, strict=True)
        shown = [f"{name} {centre:.4g} ± {spread:.4g}" for name, centre, spread in moments]
        rank_zero_info(f"mean and deviation of the training data: {', '.join(shown[:_NAMED])}")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The chosen loss of outputs (B, targets) and targets (B, targets), standardised."""
        loss: Tensor = self._loss(outputs, (targets - self.target_mean) / self.target_std)
        return loss

    def predictions(self, outputs: Tensor) -> Tensor:
        """Numbers in the units of the data, float32 (B, targets)."""
        return outputs.float() * self.target_std + self.target_mean

    def score(
        self, metrics: Metric | MetricCollection, predictions: Tensor, targets: Tensor
    ) -> None:
        """Update ``metrics`` by one batch."""
        # R2 subtracts sums of squares, which float32 cannot hold far from 0
        metrics.update(predictions - self.target_mean, targets - self.target_mean)

    def report(self, found: Any, names: Sequence[str]) -> "TargetReport":
        """The errors of each target."""
        errors = {name: torch.atleast_1d(values).tolist() for name, values in found.items()}
        return TargetReport(names, errors)


_NAMED = 10
"""The most targets whose mean and deviation are said."""


class _MeanRootSquaredError(MeanSquaredError):
    """The mean over the targets of their RMSE."""

    def compute(self) -> Tensor:
        return super().compute().mean()


class _R2Score(R2Score):
    """NaN where torchmetrics refuses a single sample."""

    def compute(self) -> Tensor:
        if self.total > 1:
            return super().compute()
        unknown = self.residual * torch.nan
        return unknown if self.multioutput == "raw_values" else unknown.mean()


@dataclass(frozen=True)
class TargetReport(Report):
    """The errors of each target.

    Attributes:
        names: names of the targets.
        errors: by the name of a metric, its value for each target.
    """

    names: Sequence[str]
    errors: dict[str, list[float]]

    def table(self) -> Table:
        """A row for each target."""
        table = Table(title="error by target")
        table.add_column("target", max_width=30, no_wrap=True, overflow="ellipsis")
        for metric in self.errors:
            table.add_column(metric, justify="right")
        for name, *values in zip(self.names, *self.errors.values(), strict=True):
            table.add_row(name, *(f"{value:.4g}" for value in values))
        return table

    def save(self, folder: Path, stage: str) -> Sequence[Path]:
        """Write ``<stage>_targets.csv``, a line for each target, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stage}_targets.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["target", *self.errors])
            writer.writerows(zip(self.names, *self.errors.values(), strict=True))
        return [path]
