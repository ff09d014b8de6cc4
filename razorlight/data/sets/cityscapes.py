"""Cityscapes, fine annotations."""

from pathlib import Path
from typing import ClassVar

from torchvision import datasets

from razorlight.data.files import (
    files_in,
    missing_data,
    require_images,
    require_pairs,
    subfolders,
)
from razorlight.data.held_out import Split
from razorlight.data.label_coding import LabelCoding
from razorlight.data.samples import PairedImages
from razorlight.data.segmentation import SegmentationData

_KINDS = datasets.Cityscapes.classes
_JUDGED = sorted((kind for kind in _KINDS if not kind.ignore_in_eval), key=lambda k: k.train_id)


class Cityscapes(SegmentationData):
    """Cityscapes: streets of Germany and around at 2048x1024 pixels, 19 classes.

    2,975 training and 500 validation images with fine annotations; the test set has no public
    labels. On disk, as the two zips unpack (they may also lie in ``root/cityscapes`` unopened)::

        root/cityscapes/leftImg8bit/{train,val}/<city>/<stem>_leftImg8bit.png
        root/cityscapes/gtFine/{train,val}/<city>/<stem>_gtFine_labelIds.png

    A mask holds the ids 0..33 of the annotation; the 19 that the benchmark judges come out as its
    train ids 0..18, the rest as 255.

    Licence: for research, teaching and other non-commercial use, upon registration; nobody may pass
    the data on. Cite Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene
    Understanding", CVPR 2016.

    Arguments are those of :class:`SegmentationData`.

    Example:
        >>> data = Cityscapes("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    class_names = tuple(kind.name for kind in _JUDGED)
    coding: ClassVar[LabelCoding] = LabelCoding(
        [kind.id for kind in _JUDGED],
        # a byte holds the -1 of licence plates as 255
        [kind.id % 256 for kind in _KINDS if kind.ignore_in_eval],
    )

    @property
    def splits(self) -> tuple[Split, ...]:
        """Training and validation; the test labels are not public."""
        return ("train", "val")

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The colours of the benchmark."""
        return tuple(kind.color for kind in _JUDGED)

    def samples(self, split: Split) -> PairedImages:
        """The images and masks of a split, by city and name."""
        folder = self.root / "cityscapes"
        remedy = (
            "register at https://www.cityscapes-dataset.com and put gtFine_trainvaltest.zip and "
            f"leftImg8bit_trainvaltest.zip in {folder}"
        )
        images, masks = (folder / kind / split for kind in ("leftImg8bit", "gtFine"))
        with missing_data("Cityscapes", folder, remedy):
            if not (images.is_dir() and masks.is_dir()):
                datasets.Cityscapes(folder, split, target_type="semantic")  # opens the zips
        files = [file for city in subfolders(images) for file in files_in(images / city)]
        require_images(files, images, remedy)
        pairs = [(file, masks / file.parent.name / _mask_name(file)) for file in files]
        require_pairs(pairs, remedy)
        return PairedImages(pairs, self.coding)


def _mask_name(image: Path) -> str:
    """``aachen_000000_000019_leftImg8bit.png`` -> ``aachen_000000_000019_gtFine_labelIds.png``."""
    return f"{image.stem.removesuffix('_leftImg8bit')}_gtFine_labelIds.png"
