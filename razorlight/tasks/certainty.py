"""How far a classifier's probabilities can be trusted: calibration, and precision by threshold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor, nn
from torchmetrics.classification import MulticlassCalibrationError, MulticlassPrecisionRecallCurve

from razorlight.tasks.reporting import Report

THRESHOLDS = 201
"""How many thresholds are tried, from 0 to 1."""

NAMED = 10
"""The most classes whose curves the picture tells apart."""


class CertaintyMetric(nn.Module):
    """Gathers the probabilities of an evaluation.

    Args:
        num_classes: number of classes.

    Example:
        >>> import torch
        >>> metric = CertaintyMetric(2)
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([0, 1]))
        >>> [*metric.compute().lines(["birch", "oak"])]
        ['calibration error 0.250', 'oak: F1 1.000 from probability 0.6, 1.000 from 0.5']
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.calibration = MulticlassCalibrationError(num_classes)
        self.curve = MulticlassPrecisionRecallCurve(num_classes, thresholds=THRESHOLDS)

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Add a batch: probabilities, float (B, classes), and class ids (B,)."""
        self.calibration.update(probabilities, targets)
        self.curve.update(probabilities, targets)

    def compute(self) -> "Certainty":
        """What was gathered, of all processes; the next evaluation begins anew."""
        error, curves = self.calibration.compute(), self.curve.compute()
        self.calibration.reset()
        self.curve.reset()
        # of precision, recall and thresholds; the last point of torchmetrics has no threshold
        precision, recall = (torch.as_tensor(each)[:, :-1].cpu() for each in curves[:2])
        return Certainty(float(error), precision, recall)


@dataclass(frozen=True)
class Certainty:
    """Calibration, and precision and recall by threshold.

    Attributes:
        calibration_error: the expected difference of the likeliest class's probability and the
            share of such predictions that are right, in 0..1 (15 bins; Guo et al., ICML 2017).
        precision: of each class by threshold, float (classes, :data:`THRESHOLDS`); NaN where no
            probability is so high.
        recall: likewise; NaN for a class that does not occur.
    """

    calibration_error: float
    precision: Tensor
    recall: Tensor

    def lines(self, names: Sequence[str]) -> Iterator[str]:
        """The calibration error and, of two classes, the best threshold for the second.

        Args:
            names: one per class.
        """
        yield f"calibration error {self.calibration_error:.3f}"
        if len(names) == 2:
            f1 = self._f1(1)
            best = int(f1.argmax())
            yield (
                f"{names[1]}: F1 {f1[best]:.3f} from probability {_threshold(best):g}, "
                f"{f1[THRESHOLDS // 2]:.3f} from 0.5"
            )

    def _f1(self, label: int) -> Tensor:
        precision, recall = self.precision[label], self.recall[label]
        return (2 * precision * recall / (precision + recall)).nan_to_num(0)

    def plot(self, names: Sequence[str]) -> Figure:
        """Precision over recall, a curve for each class, or their mean if they are many.

        Args:
            names: one per class.
        """
        figure = Figure(figsize=(6, 4.5), dpi=120, layout="constrained")
        axes = figure.subplots()
        if len(names) <= NAMED:
            for name, precision, recall in zip(names, self.precision, self.recall, strict=True):
                if not recall.isnan().any():
                    axes.plot(recall, precision, label=name)
        else:
            axes.plot(
                self.recall.nanmean(0), self.precision.nanmean(0), label="mean of the classes"
            )
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        return figure

    def save(self, folder: Path, stage: str, names: Sequence[str]) -> Path:
        """Write ``<stage>_precision_recall.png``, and return its path."""
        path = folder / f"{stage}_precision_recall.png"
        self.plot(names).savefig(path, format="png")
        return path


@dataclass(frozen=True)
class CertaintyReport(Report):
    """The scores of the classes, and how far the probabilities can be trusted.

    Attributes:
        report: the scores.
        certainty: calibration, and precision and recall by threshold.
        names: one per class.
    """

    report: Report
    certainty: Certainty
    names: Sequence[str]

    def table(self) -> Table:
        """The scores."""
        return self.report.table()

    def save(self, folder: Path, stage: str) -> Sequence[Path]:
        """Write the files of both, and return their paths."""
        return [*self.report.save(folder, stage), self.certainty.save(folder, stage, self.names)]

    def lines(self) -> Sequence[str]:
        """The lines on certainty."""
        return [*self.certainty.lines(self.names)]


def _threshold(index: int) -> float:
    return float(torch.linspace(0, 1, THRESHOLDS)[index])
