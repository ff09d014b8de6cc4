"""Classification of images with any number of classes each, with the networks of timm."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MultilabelAveragePrecision,
    MultilabelF1Score,
    MultilabelStatScores,
)
from torchmetrics.utilities.data import dim_zero_cat

from razorlight.errors import RazorError
from razorlight.protocols import THRESHOLD
from razorlight.tasks.class_report import MultiLabelReport
from razorlight.tasks.class_weights import (
    ClassWeights,
    binary_cross_entropy,
    positive_weights_of_data,
)
from razorlight.tasks.labels import WeighingTask
from razorlight.tasks.networks import timm_network


class MultiLabelClassificationTask(WeighingTask):
    """Fine-tune a timm network to tell which classes an image has: any number, also none.

    Batches are ``(images, targets)``: float32 (B, 3, H, W), and which classes there are, bool
    (B, classes); in training also shares, float32. The network gives one logit for each class, and
    the loss is binary cross-entropy. ``predict`` gives probabilities, float32 (B, classes), which
    do not sum to 1.

    Logs ``train/loss``, and for val and test ``loss``, ``mAP`` (the average precision, as a mean
    over the classes that occur) and ``F1`` (a mean over all classes; from a probability of .5 on, a
    class is predicted). ``validate`` and ``test`` end with a table of the classes' scores, and
    write ``{val,test}_classes.csv`` into the run's folder.

    Args:
        model: a name of ``timm.list_models()``, such as ``vit_tiny_patch16_224``.
        num_classes: number of classes; the command line takes it from the data.
        weights: see :class:`ClassificationTask`.
        model_args: further arguments of the network, such as ``img_size`` or ``drop_path_rate``.
        pos_weight: one weight per class in the loss, for images that have the class; or ``auto``
            for weights under which they count as much as those that do not.
        in_channels: see :class:`ClassificationTask`.
        **kwargs: see :class:`FineTuningTask`.

    Raises:
        RazorError: for less than two classes, an unknown model, weights that cannot be had or do
            not fit, positive weights of another number, or arguments that :class:`FineTuningTask`
            refuses.

    Example:
        >>> import torch
        >>> task = MultiLabelClassificationTask("resnet10t", num_classes=3)
        >>> logits = task(torch.randn(2, 3, 64, 64))
        >>> task.loss(logits, torch.tensor([[True, True, False], [False, False, False]])).shape
        torch.Size([])
    """

    def __init__(
        self,
        model: str,
        num_classes: int,
        weights: str = "none",
        model_args: dict[str, Any] | None = None,
        pos_weight: ClassWeights = None,
        in_channels: int = 3,
        **kwargs: Any,
    ) -> None:
        if num_classes < 2:
            raise RazorError(
                f"num_classes is {num_classes}; it must be 2 or more. To tell whether an image has "
                "one class or not, take ClassificationTask, with a class for each answer"
            )
        loss = binary_cross_entropy(pos_weight, num_classes)
        counted: dict[str, Any] = {"num_labels": num_classes, "threshold": THRESHOLD}
        super().__init__(
            timm_network(model, num_classes, weights, model_args or {}, in_channels),
            MetricCollection(
                {
                    "mAP": _MeanAveragePrecision(num_classes, average="none"),
                    "F1": MultilabelF1Score(average="macro", **counted),
                }
            ),
            MetricCollection(
                {
                    "AP": _AveragePrecision(num_classes, average="none"),
                    "counts": MultilabelStatScores(average="none", **counted),
                }
            ),
            num_classes,
            pos_weight,
            **kwargs,
        )
        self._loss = loss

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of logits (B, classes) and what is there, bool or shares."""
        loss: Tensor = self._loss(outputs, targets.to(outputs.dtype))
        return loss

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probabilities, float32 (B, classes)."""
        return outputs.float().sigmoid()

    def score(
        self, metrics: Metric | MetricCollection, predictions: Tensor, targets: Tensor
    ) -> None:
        """Update ``metrics`` by one batch."""
        metrics.update(predictions, targets.long())

    def weights_by_data(self) -> list[float]:
        """The weights of images that have a class, from the training data."""
        return positive_weights_of_data(self.trainer)

    def report(self, found: Any, names: Sequence[str]) -> MultiLabelReport:
        """The scores of the classes."""
        return MultiLabelReport(names, "AP", found["AP"], found["counts"])


class _AveragePrecision(MultilabelAveragePrecision):
    """The average precision of each class; NaN, in place of a warning, where no image has it."""

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics' own has this one too
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive samples")
            values: Tensor = super().compute()
        return values.masked_fill(~dim_zero_cat(self.target).bool().any(0), torch.nan)


class _MeanAveragePrecision(_AveragePrecision):
    """The mean over the classes that occur."""

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics' own has this one too
        return super().compute().nanmean()
