"""What classification and segmentation share: a confusion matrix, and scores by class."""

from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from razorlight.logged_pictures import log_picture
from razorlight.protocols import Labelled
from razorlight.tasks.base import Batch, FineTuningTask
from razorlight.tasks.certainty import Certainty
from razorlight.tasks.class_report import ClassReport, Score
from razorlight.tasks.class_weights import ClassWeights, weigh, weights_of_data

_HELD = "class_weights"
"""The key of the weights in a checkpoint."""


class LabelTask(FineTuningTask):
    """A task whose targets are class ids.

    ``validate`` and ``test`` end with a table of the classes' scores, and write
    ``{val,test}_classes.csv`` and ``{val,test}_confusion.png`` into the run's folder.

    Args:
        net: see :class:`FineTuningTask`.
        metrics: see :class:`FineTuningTask`.
        num_classes: number of classes.
        score: figure that the report gives of each class.
        ignore_index: target that counts for nothing.
        class_weights: weights of the classes in the cross-entropy. ``auto`` takes them from the
            training data at the beginning of a fit; a checkpoint holds them for other stages.
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
        super().__init__(net, metrics, **kwargs)
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=ignore_index)
        self.num_classes = num_classes
        self._class_score = score
        self._class_weights = class_weights
        self._held_weights: list[float] = []

    def setup(self, stage: str) -> None:
        """Set the weights of the classes by the training data, if that is asked for."""
        if self._class_weights == "auto" and stage == TrainerFn.FITTING:
            self._hold(weights_of_data(self.trainer, self.num_classes))

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

    def _evaluate(self, batch: Batch, stage: str, metrics: MetricCollection) -> Tensor:
        predictions = super()._evaluate(batch, stage, metrics)
        if not self._fitting:
            self.confusion.update(predictions, batch[1])
        return predictions

    def on_validation_epoch_end(self) -> None:
        """Report the classes, unless this is the validation of a fit."""
        if not self._fitting:
            self._report_classes("val")

    def on_test_epoch_end(self) -> None:
        """Report the classes."""
        self._report_classes("test")

    @property
    def _fitting(self) -> bool:
        return self.trainer.state.fn == TrainerFn.FITTING

    def _report_classes(self, stage: str) -> None:
        confusion = self.confusion.compute().cpu()
        self.confusion.reset()
        certainty = self._computed_certainty()  # every process takes part
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)  # every rank must ask
        if not self.trainer.is_global_zero:
            return
        report = ClassReport(confusion, self._names, self._class_score)
        console = Console()
        console.print(report.table())
        files = [*report.save(folder, stage)]
        if certainty is not None:
            files.append(certainty.save(folder, stage, self._names))
        lines = certainty.lines(self._names) if certainty is not None else ()
        for line in (*files, *lines):
            console.print(str(line), soft_wrap=True, highlight=False, markup=False)
        for file in files:
            if file.suffix == ".png":
                log_picture(self.trainer, file)

    def _computed_certainty(self) -> Certainty | None:
        """How far the evaluated probabilities can be trusted; None if a task predicts none."""
        return None

    @property
    def _names(self) -> list[str]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        names = data.class_names if isinstance(data, Labelled) else range(self.num_classes)
        return [str(name) for name in names]
