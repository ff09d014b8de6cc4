"""Augmentation and normalisation, as torchvision v2 pipelines over an image and its target.

Every pipeline takes ``(image, target)``: the image as PIL or ``tv_tensors.Image`` (3, H, W) uint8,
the target as an int (a class, passed through) or a ``tv_tensors.Mask`` (H, W). It gives plain
tensors: the image float32 and normalised, a mask of class ids int64. Whatever an image gains by
padding is the mean colour there (0 once normalised) and :data:`IGNORE_INDEX` in the mask.
"""

from collections.abc import Sequence
from typing import NamedTuple

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


def pipeline(
    steps: list[v2.Transform],
    mean: Sequence[float],
    std: Sequence[float],
    mask_dtype: torch.dtype = torch.int64,
) -> v2.Transform:
    """Put ``steps``, which work on decoded images, between decoding and normalisation."""
    dtypes = {tv_tensors.Image: torch.float32, tv_tensors.Mask: mask_dtype, "others": None}
    return v2.Compose(
        [
            v2.ToImage(),
            *steps,
            v2.ToDtype(dtypes, scale=True),
            v2.Normalize(list(mean), list(std)),
            v2.ToPureTensor(),
        ]
    )
