"""Segmentation over two folders, images and masks."""

from pathlib import Path
from typing import Any

from razorlight.data.base import RazorDataModule, Split, require_at_least
from razorlight.data.datasets import LabelCoding, MaskedImages, pair_by_stem
from razorlight.data.transforms import Pipelines, segmentation
from razorlight.errors import RazorError


class SegmentationFolder(RazorDataModule):
    """Images and masks paired by the stem of their names.

    On disk::

        root/images/{train,val}/<stem>.jpg    any format that PIL reads
        root/masks/{train,val}/<stem>.png     indexed or grey: class ids 0..n-1, 255 to ignore
        root/{images,masks}/test              optional

    Args:
        root: the folder that holds ``images`` and ``masks``.
        classes: the names of classes 0, 1, ...
        image_size: side of the square crops, and of the padded images that are judged, in pixels.
        **kwargs: see :class:`RazorDataModule`.

    Raises:
        RazorError: unless there are 1 to 255 classes.
    """

    def __init__(self, root: str, classes: list[str], image_size: int = 512, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < len(classes) <= self.ignore_index:
            raise RazorError(f"{len(classes)} classes; name 1 to {self.ignore_index} of them")
        require_at_least("image_size", image_size, 2)
        self.root = Path(root)
        self.class_names = tuple(classes)
        self.image_size = image_size

    @property
    def splits(self) -> tuple[Split, ...]:
        """``test`` only where there is such a folder of masks."""
        has_test = (self.root / "masks" / "test").is_dir()
        return ("train", "val", "test") if has_test else ("train", "val")

    def samples(self, split: Split) -> MaskedImages:
        """The images and masks of a split, by name."""
        pairs = pair_by_stem(
            self.root / "images" / split,
            self.root / "masks" / split,
            "SegmentationFolder reads root/{images,masks}/{train,val[,test]}: set root",
        )
        return MaskedImages(pairs, LabelCoding(self.num_classes))

    def pipelines(self) -> Pipelines:
        """Scale jitter, crops and distortion to train, whole images to judge."""
        return segmentation(self.image_size, self.mean, self.std)
