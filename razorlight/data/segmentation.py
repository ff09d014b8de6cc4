"""What data modules of semantic segmentation share."""

from pathlib import Path
from typing import Any

from razorlight.data.base import LabelledData, require_at_least
from razorlight.data.dense_transforms import Size, segmentation
from razorlight.data.transforms import Pipelines


class SegmentationData(LabelledData):
    """Images with masks: random crops to train, whole images to judge.

    Targets are class ids, int64 (B, H, W), 255 where a pixel counts for nothing.

    Args:
        root: the folder that holds the data.
        image_size: of the crops and of the images that are judged, in pixels: the side of a square,
            or height and width. What is judged is resized to fit and padded.
        full_resolution: judge images one at a time, neither resized nor padded, and train on crops
            at that scale (see :func:`razorlight.data.dense_transforms.segmentation`).
        **kwargs: see :class:`RazorDataModule`.

    Raises:
        RazorError: for a side below 2.
    """

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
    def eval_batch_size(self) -> int:
        """1 at full resolution, where images differ in size."""
        return 1 if self.full_resolution else self.batch_size

    def pipelines(self) -> Pipelines:
        """Scale jitter, crops, flips and distortion to train, whole images to judge."""
        return segmentation(self.image_size, self.mean, self.std, self.full_resolution)


def require_size(image_size: Size) -> None:
    """Refuse a side below 2.

    Raises:
        RazorError: naming the argument.
    """
    for side in (image_size,) if isinstance(image_size, int) else image_size:
        require_at_least("image_size", side, 2)
