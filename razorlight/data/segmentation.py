"""What data modules of semantic segmentation share."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors

from razorlight.data.base import RazorDataModule, require_at_least
from razorlight.data.dense_transforms import Size, height_width, segmentation
from razorlight.data.palette import voc_palette
from razorlight.data.pictures import colour_labels
from razorlight.data.transforms import IGNORE_INDEX, Pipelines
from razorlight.protocols import Palette


class SegmentationData(RazorDataModule):
    """Images with masks: random crops in training, whole images in evaluation.

    Targets are class ids, int64 (B, H, W), 255 where a pixel counts for nothing.

    Args:
        root: the folder that holds the data.
        image_size: size of the crops and of the images in evaluation, in pixels: the side of a
            square, or height and width. In evaluation images are resized to fit and padded.
        full_resolution: Whether to evaluate images one at a time, neither resized nor padded, and
            to train on crops at that scale (see
            :func:`razorlight.data.dense_transforms.segmentation`).
        **kwargs: see :class:`RazorDataModule`.

    Attributes:
        class_names: one name per class.
        ignore_index: the label of pixels that count for nothing.

    Raises:
        RazorError: for a side below 2.
    """

    class_names: tuple[str, ...]
    ignore_index: ClassVar[int] = IGNORE_INDEX

    def __init__(
        self,
        root: str = "data",
        image_size: Size = 512,
        full_resolution: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_size(image_size)
        self.root = Path(root)
        self.image_size = image_size
        self.full_resolution = full_resolution

    @property
    def num_classes(self) -> int:
        """How many classes there are, without :attr:`ignore_index`."""
        return len(self.class_names)

    @property
    def palette(self) -> Palette:
        """One RGB colour per class, 0..255."""
        return voc_palette(self.num_classes)

    @property
    def eval_batch_size(self) -> int:
        """1 at full resolution, where images differ in size."""
        return 1 if self.full_resolution else self.batch_size

    def pipelines(self) -> Pipelines:
        """Scale jitter, crops, flips and distortion in training; whole images in evaluation."""
        return segmentation(self.image_size, self.mean, self.std, self.full_resolution)

    def blank_sample(self) -> tuple[Tensor, Tensor]:
        """A black image, and a mask of the first class."""
        mask = torch.zeros(self.side, dtype=torch.uint8)
        return self.images.blank(self.side), tv_tensors.Mask(mask)

    @property
    def side(self) -> tuple[int, int]:
        """Height and width that ``image_size`` stands for."""
        return height_width(self.image_size)

    def show_target(self, target: Tensor) -> Tensor:
        """A mask, integer (H, W), in the colours of :attr:`palette`."""
        return colour_labels(target, self.palette)


def require_size(image_size: Size) -> None:
    """Refuse a side below 2.

    Raises:
        RazorError: naming the argument.
    """
    for side in (image_size,) if isinstance(image_size, int) else image_size:
        require_at_least("image_size", side, 2)
