"""Segmentation over two folders, images and masks."""

from pathlib import Path
from typing import Any

from razorlight.data.base import Split
from razorlight.data.files import pair_by_stem
from razorlight.data.label_coding import LabelCoding
from razorlight.data.samples import PairedImages
from razorlight.data.segmentation import SegmentationData
from razorlight.errors import RazorError


class SegmentationFolder(SegmentationData):
    """Images and masks paired by the stem of their names.

    On disk::

        root/images/{train,val}/<stem>.jpg    any format that PIL reads
        root/masks/{train,val}/<stem>.png     indexed or grey: class ids 0..n-1, 255 to ignore
        root/{images,masks}/test              optional

    Args:
        root: the folder that holds ``images`` and ``masks``.
        classes: the names of classes 0, 1, ...
        **kwargs: see :class:`SegmentationData`.

    Raises:
        RazorError: unless there are 1 to 255 classes.

    Example:
        >>> data = SegmentationFolder(
        ...     "my_data", ["background", "roof"], image_size=64, batch_size=2, num_workers=0
        ... )
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    def __init__(self, root: str, classes: list[str], **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        if not 0 < len(classes) <= self.ignore_index:
            raise RazorError(f"{len(classes)} classes; name 1 to {self.ignore_index} of them")
        self.class_names = tuple(classes)

    @property
    def splits(self) -> tuple[Split, ...]:
        """``test`` only where there is such a folder of masks."""
        has_test = (self.folder / "masks" / "test").is_dir()
        return ("train", "val", "test") if has_test else ("train", "val")

    @property
    def folder(self) -> Path:
        """The folder that holds ``images`` and ``masks``."""
        return self.root

    @property
    def coding(self) -> LabelCoding:
        """The classes that the numbers in the masks stand for."""
        return LabelCoding(range(self.num_classes))

    @property
    def remedy(self) -> str:
        """The way to get the data, for messages."""
        return "SegmentationFolder reads root/{images,masks}/{train,val[,test]}: set root"

    def samples(self, split: Split) -> PairedImages:
        """The images and masks of a split, by name."""
        images, masks = (self.folder / kind / split for kind in ("images", "masks"))
        return PairedImages(pair_by_stem(images, masks, self.remedy), self.coding)
