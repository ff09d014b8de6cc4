"""Augmentation of images of any number of bands, float32 (bands, H, W), NaN where data are missing.

What moves pixels works on all bands. What changes colours is for red, green and blue of 8 bits. A
missing value becomes the mean of its band, which is 0 once normalised.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from razorlight.data.augmentation import BASIC, Augmentation, classification
from razorlight.data.dense_transforms import PhotometricDistort
from razorlight.data.image_readers import HeightWidth
from razorlight.data.imagery import Imagery
from razorlight.data.normalisation import Normalisation, fill_nodata
from razorlight.data.rasters import Rasters
from razorlight.data.transforms import IGNORE_INDEX, Pipelines, pipeline


def segmentation_of_bands(
    side: HeightWidth, normalisation: Normalisation, colours: bool
) -> Pipelines:
    """Training: mirrored along both axes, colours distorted. Evaluation: windows as they are.

    There is no scale jitter: a pixel of such images has a size on the ground.

    Args:
        side: height and width of the windows, to which smaller ones are padded.
        normalisation: mean and standard deviation of each band.
        colours: Whether images are red, green and blue of 8 bits, in 0..1.
    """
    padded = v2.Compose([_floats(), PadTo(side)])
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    distort = [PhotometricDistort()] if colours else []
    mean, std = normalisation.mean, normalisation.std
    known = filled(normalisation, colours)
    return Pipelines(
        pipeline([padded, *flips, *known, *distort], mean, std),
        pipeline([padded, *known], mean, std),
    )


def whole_images(size: int, imagery: Imagery, augment: Augmentation = BASIC) -> Pipelines:
    """:func:`razorlight.data.augmentation.classification`, of pictures and of any number of bands.

    RandAugment is for colours alone.

    Args:
        size: side of the images that come out, in pixels.
        imagery: how images are read and normalised.
        augment: further augmentation in training.
    """
    normalisation, colours = imagery.normalisation, imagery.reader.are_colours
    augment = augment if colours else replace(augment, randaugment=0)
    is_raster = isinstance(imagery.reader, Rasters)
    known = filled(normalisation, colours) if is_raster else []
    return classification(size, normalisation.mean, normalisation.std, augment, known)


def _floats() -> v2.Transform:
    """Pictures, which are of 8 bits, become float32 in 0..1; bands are so already."""
    return v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)


def filled(normalisation: Normalisation, colours: bool) -> list[v2.Transform]:
    """Steps after which no value is missing, and colours are of 8 bits.

    Args:
        normalisation: mean of each band.
        colours: Whether images are red, green and blue in 0..1.
    """
    eight_bits = {tv_tensors.Image: torch.uint8, "others": None}
    back = [v2.ToDtype(eight_bits, scale=True)] if colours else []
    return [FillNodata(normalisation.mean), *back]


class FillNodata(v2.Transform):
    """Put the mean of the band where an image is NaN.

    Args:
        mean: of each band.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, mean: Sequence[float]) -> None:
        super().__init__()
        self.mean = mean

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Fill one image."""
        return tv_tensors.wrap(fill_nodata(inpt, self.mean), like=inpt)


class PadTo(v2.Transform):
    """Pad on the right and below: images by NaN, masks by the label that is ignored.

    Args:
        side: height and width that an image has at least.
    """

    def __init__(self, side: HeightWidth) -> None:
        super().__init__()
        self.side = side

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad one image or mask."""
        below, right = (
            max(0, side - have) for side, have in zip(self.side, inpt.shape[-2:], strict=True)
        )
        fill = nan if isinstance(inpt, tv_tensors.Image) else IGNORE_INDEX
        return v2.functional.pad(inpt, [0, 0, right, below], fill=fill) if below or right else inpt
