"""Every known loss, and the shape of an input for it."""

import segmentation_models_pytorch as smp
import timm.loss
import torch
from torch import nn

from razorlight.tasks.depth import SILogLoss

IMAGE = (2, 8, 9, 7)


class Labelled(nn.Module):
    """A loss of logits with classes in dim 1, and fixed labels."""

    def __init__(self, loss, before=nn.Identity):
        super().__init__()
        self.before, self.loss = before(), loss

    def forward(self, x):
        x = self.before(x)
        labels = torch.arange(x.numel() // x.shape[1]).view(len(x), *x.shape[2:]) % x.shape[1]
        return self.loss(x, labels)


class Targeted(Labelled):
    """A loss of what has a fixed target of its own shape, in 0..1."""

    def forward(self, x):
        x = self.before(x)
        target = torch.arange(x.numel()).view_as(x) % 7 / 7
        return self.loss(x, target.to(x.dtype))


class Float32(nn.Module):
    """Its input in float32, which smp's Lovasz loss computes in."""

    def forward(self, x):
        return x.float()


def of_classes(loss, before=nn.Identity, **kwargs):
    return lambda: Labelled(loss("multiclass", **kwargs), before), IMAGE


LOSSES = {
    "CrossEntropyLoss": (
        lambda: Labelled(nn.CrossEntropyLoss(ignore_index=3, label_smoothing=0.1)),
        IMAGE,
    ),
    "CrossEntropyLoss weighted": (
        lambda: Labelled(nn.CrossEntropyLoss(torch.arange(8.0), reduction="none")),
        IMAGE,
    ),
    "CrossEntropyLoss enlarged": (
        lambda: Labelled(nn.CrossEntropyLoss(), lambda: nn.Upsample(scale_factor=2)),
        IMAGE,
    ),
    "BCEWithLogitsLoss": (lambda: Targeted(nn.BCEWithLogitsLoss()), IMAGE),
    "smp DiceLoss": of_classes(smp.losses.DiceLoss, ignore_index=3),
    "smp FocalLoss": of_classes(smp.losses.FocalLoss, ignore_index=3),
    "smp JaccardLoss": of_classes(smp.losses.JaccardLoss),
    "smp LovaszLoss": of_classes(smp.losses.LovaszLoss, Float32, ignore_index=3),
    "smp TverskyLoss": of_classes(smp.losses.TverskyLoss, alpha=0.3, beta=0.7),
    "smp MCCLoss": (lambda: Targeted(smp.losses.MCCLoss(), nn.Sigmoid), IMAGE),
    "smp SoftBCEWithLogitsLoss": (
        lambda: Targeted(smp.losses.SoftBCEWithLogitsLoss(ignore_index=None)),
        IMAGE,
    ),
    "smp SoftCrossEntropyLoss": (
        lambda: Labelled(smp.losses.SoftCrossEntropyLoss(smooth_factor=0.1)),
        IMAGE,
    ),
    "timm BinaryCrossEntropy": (
        lambda: Labelled(timm.loss.BinaryCrossEntropy(), nn.Flatten),
        IMAGE,
    ),
    "timm LabelSmoothingCrossEntropy": (
        lambda: Labelled(timm.loss.LabelSmoothingCrossEntropy(), nn.Flatten),
        IMAGE,
    ),
    "timm SoftTargetCrossEntropy": (
        lambda: Targeted(timm.loss.SoftTargetCrossEntropy(), nn.Flatten),
        IMAGE,
    ),
    "SILogLoss": (lambda: Targeted(SILogLoss(0.85)), (2, 9, 7)),
}
