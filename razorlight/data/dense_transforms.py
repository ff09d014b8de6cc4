"""Augmentation where every pixel has a target: a class, or a depth.

Pipelines as in :mod:`razorlight.data.transforms`; the target is a ``tv_tensors.Mask`` (H, W). It
moves with the image, by nearest neighbours, and has a void value where an image is padded.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from razorlight.data.transforms import IGNORE_INDEX, Pipelines, pipeline

Size = int | tuple[int, int]
"""Size of an image in pixels: height and width, or the side of a square."""

Fill = dict[type, Any]
"""The value that padding has, by type of input."""


def segmentation(
    size: Size, mean: Sequence[float], std: Sequence[float], full_resolution: bool = False
) -> Pipelines:
    """Training: the usual recipe of scene parsing. Evaluation: whole images.

    The recipe is that of mmsegmentation, without its second draw for crops that one class fills:
    scale jitter, uniform in 0.5 to 2, a random crop (padded if the image is smaller), a flip, and a
    photometric distortion. At factor 1 the shorter side of the image is that of the crop. For
    evaluation, the image is resized to fit into ``size`` and padded there, so that images of any
    shape collate and no pixel goes unseen. Scores are thus of masks at that resolution.

    At full resolution, factor 1 is the image as it is, and images are evaluated as they are,
    neither resized nor padded.

    Args:
        size: size of the crops and, unless at full resolution, of the images in evaluation.
        mean: mean of each channel that the normalisation subtracts, for values in 0..1.
        std: standard deviation of each channel, likewise.
        full_resolution: Whether to work at the images' own scale.
    """
    fill = _fill(mean, IGNORE_INDEX)
    crop = height_width(size)
    about_crop = v2.RandomShortestSize(list(range(min(crop) // 2, 2 * min(crop) + 1)))
    train = [
        RandomScale((0.5, 2)) if full_resolution else about_crop,
        v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(),
        PhotometricDistort(),
    ]
    judge = [] if full_resolution else [Letterbox(size, fill)]
    return Pipelines(pipeline(train, mean, std), pipeline(judge, mean, std))


def depth(size: Size, mean: Sequence[float], std: Sequence[float]) -> Pipelines:
    """Training: shifts, flips and photometric distortion. Evaluation: whole images.

    Both resize the image to fit into ``size``. There is no scale jitter: a camera that magnifies
    twice shows things as if at half their distance, so that a network that learnt from zoomed
    images with depths left in metres would learn what no fixed camera sees. A shift, by up to an
    eighth of ``size``, is the crop that keeps the scale, and a flip is the same scene in a mirror.

    Args:
        size: size of the resulting images and depths; 0 is the depth where an image is padded.
        mean: mean of each channel that the normalisation subtracts, for values in 0..1.
        std: standard deviation of each channel, likewise.
    """
    fill = _fill(mean, 0)
    height, width = height_width(size)
    train = [
        Letterbox(size, fill),
        v2.RandomCrop((height, width), padding=[width // 8, height // 8], fill=fill),
        v2.RandomHorizontalFlip(),
        PhotometricDistort(),
    ]
    metres = torch.float32
    return Pipelines(
        pipeline(train, mean, std, metres), pipeline([Letterbox(size, fill)], mean, std, metres)
    )


class Letterbox(v2.Transform):
    """Resize to the largest that fits into ``size``, and pad on the right and below.

    Args:
        size: size of the result.
        fill: value that padding has, by type of input.
    """

    def __init__(self, size: Size, fill: Fill) -> None:
        super().__init__()
        self.size = height_width(size)
        self.fill = fill

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Fit one image or mask."""
        before = inpt.shape[-2:]
        factor = min(room / side for room, side in zip(self.size, before, strict=True))
        height, width = (max(1, round(factor * side)) for side in before)
        padding = [0, 0, self.size[1] - width, self.size[0] - height]
        resized = v2.functional.resize(inpt, [height, width])
        return v2.functional.pad(resized, padding, fill=self.fill[type(inpt)])


class RandomScale(v2.Transform):
    """Resize by one random factor, uniform in ``factors``.

    Args:
        factors: the least and the greatest factor.
    """

    def __init__(self, factors: tuple[float, float]) -> None:
        super().__init__()
        self.factors = factors

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size that image and mask are brought to."""
        factor = torch.empty(1).uniform_(*self.factors).item()
        return {"size": [max(1, round(factor * side)) for side in v2.query_size(flat_inputs)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one image or mask."""
        return v2.functional.resize(inpt, params["size"])


class PhotometricDistort(v2.RandomPhotometricDistort):
    """Brightness, contrast, saturation and hue, each in half of the images; the sky stays blue.

    torchvision's, after SSD, exchanges the colour channels too, which scene parsing does not.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw all but an exchange of channels."""
        return {**super().make_params(flat_inputs), "channel_permutation": None}


def _fill(mean: Sequence[float], void: int) -> Fill:
    """The mean colour, 0 once normalised, and ``void`` in the target."""
    return {tv_tensors.Image: [round(255 * c) for c in mean], tv_tensors.Mask: void}


def height_width(size: Size) -> tuple[int, int]:
    """Height and width that a size stands for."""
    return (size, size) if isinstance(size, int) else size
