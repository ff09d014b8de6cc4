"""Augmentation and normalisation, as torchvision v2 pipelines over an image and its target.

Every pipeline takes ``(image, target)``: the image as PIL or ``tv_tensors.Image`` (3, H, W) uint8,
the target as an int (a class, passed through) or a ``tv_tensors.Mask`` (H, W). It gives plain
tensors: the image float32 and normalised, the mask int64. Whatever an image gains by padding is the
mean colour there (0 once normalised) and :data:`IGNORE_INDEX` in the mask.
"""

from typing import Any, NamedTuple

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

Channels = tuple[float, float, float]

IGNORE_INDEX = 255
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


class Pipelines(NamedTuple):
    """What a data set does to its samples.

    Attributes:
        train: with augmentation.
        eval: without, for validation, test and prediction.
    """

    train: v2.Transform
    eval: v2.Transform


def segmentation(size: int, mean: Channels, std: Channels) -> Pipelines:
    """The usual recipe of scene parsing to train; the whole image, padded to a square, to judge.

    Training: the shorter side becomes 0.5 to 2 times ``size``, then a random crop (padded where the
    image is smaller), a flip, and a photometric distortion. Judging: the longer side becomes
    ``size`` and the rest is padded, so that images of any shape collate and no pixel goes unseen.
    Scores are thus of masks at that resolution, not at the images' own.

    Args:
        size: side of the images and masks that come out, in pixels.
        mean: of the normalisation, per channel, for values in 0..1.
        std: likewise.
    """
    fill = {tv_tensors.Image: [round(255 * c) for c in mean], tv_tensors.Mask: IGNORE_INDEX}
    train = [
        v2.RandomShortestSize(list(range(size // 2, 2 * size + 1))),
        v2.RandomCrop(size, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(),
        v2.RandomPhotometricDistort(),
    ]
    judge = [v2.Resize(None, max_size=size), PadToSquare(size, fill)]
    return Pipelines(pipeline(train, mean, std), pipeline(judge, mean, std))


def pipeline(steps: list[v2.Transform], mean: Channels, std: Channels) -> v2.Transform:
    """Put ``steps``, which work on uint8 images, between decoding and normalisation."""
    dtypes = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
    return v2.Compose(
        [
            v2.ToImage(),
            *steps,
            v2.ToDtype(dtypes, scale=True),
            v2.Normalize(list(mean), list(std)),
            v2.ToPureTensor(),
        ]
    )


class PadToSquare(v2.Transform):
    """Pad on the right and below, up to ``size`` by ``size``.

    Args:
        size: side in pixels; nothing may be larger.
        fill: what to pad with, by type of input.
    """

    def __init__(self, size: int, fill: dict[type, Any]) -> None:
        super().__init__()
        self.size = size
        self.fill = fill

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad one image or mask; anything else passes through."""
        if type(inpt) not in self.fill:
            return inpt
        height, width = inpt.shape[-2:]
        padding = [0, 0, self.size - width, self.size - height]
        return v2.functional.pad(inpt, padding, fill=self.fill[type(inpt)])
