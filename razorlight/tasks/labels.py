"""What tasks share whose targets are classes: weights of the classes, and scores by class."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from razorlight.tasks.class_report import ClassReport, Score
from razorlight.tasks.class_weights import ClassWeights, weigh, weights_of_data
from razorlight.tasks.reporting import Report, ReportingTask

_HELD = "class_weights"
"""The key of the weights in a checkpoint."""


class WeighingTask(ReportingTask):
    """A task whose targets are classes, which its loss may weigh.

    Args:
        net: see :class:`FineTuningTask`.
        metrics: see :class:`FineTuningTask`.
        reported: see :class:`ReportingTask`.
        num_classes: number of classes.
        class_weights: weights of the classes in the loss. ``auto`` takes them from the training
            data at the beginning of a fit; a checkpoint holds them for other stages.
        **kwargs: see :class:`FineTuningTask`.
    """

    def __init__(
        self,
        net: nn.Module,
        metrics: MetricCollection,
        reported: Metric | MetricCollection,
        num_classes: int,
        class_weights: ClassWeights = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(net, metrics, reported, num_classes, **kwargs)
        self.num_classes = num_classes
        self._class_weights = class_weights
        self._held_weights: list[float] = []

    def weights_by_data(self) -> list[float]:
        """The weights of the classes that the training data give."""
        return weights_of_data(self.trainer, self.num_classes)

    def setup(self, stage: str) -> None:
        """Set the weights of the classes by the training data, if that is asked for."""
        if self._class_weights == "auto" and stage == TrainerFn.FITTING:
            self._hold(self.weights_by_data())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the weights of the classes that the training data gave."""
        if self._held_weights:
            checkpoint[_HELD] = self._held_weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights of the classes that the checkpoint was trained with."""
        if self._class_weights == "auto" and _HELD in checkpoint:
            self._hold(checkpoint[_HELD])

    def _hold(self, weights: list[float]) -> None:
        self._held_weights = weights
        weigh(self, weights)


class LabelTask(WeighingTask):
    """A task whose targets are class ids.

    ``validate`` and ``test`` end with a table of the classes' scores, and write
    ``{val,test}_classes.csv`` and ``{val,test}_confusion.png`` into the run's folder.

    Args:
        net: see :class:`FineTuningTask`.
        metrics: see :class:`FineTuningTask`.
        num_classes: number of classes.
        score: figure that the report gives of each class.
        ignore_index: target that counts for nothing.
        class_weights: see :class:`WeighingTask`.
        **kwargs: see :class:`FineTuningTask`.
    """

    def __init__(
        self,
        net: nn.Module,
        metrics: MetricCollection,
        num_classes: int,
        score: Score,
        ignore_index: int | None = None,
        class_weights: ClassWeights = None,
        **kwargs: Any,
    ) -> None:
        confusion = MulticlassConfusionMatrix(num_classes, ignore_index=ignore_index)
        super().__init__(net, metrics, confusion, num_classes, class_weights, **kwargs)
        self._class_score = score

    def report(self, found: Any, names: Sequence[str]) -> Report:
        """The scores of the classes, from the confusion matrix."""
        return ClassReport(names, self._class_score, found)
