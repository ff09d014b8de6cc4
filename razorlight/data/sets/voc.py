"""PASCAL VOC 2012, alone and with the annotations of SBD."""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from torch.utils.data import ConcatDataset
from torchvision import datasets

from razorlight.data.files import missing_data, require_below, require_pairs
from razorlight.data.held_out import Split
from razorlight.data.label_coding import LabelCoding
from razorlight.data.reading import readable
from razorlight.data.samples import PairedImages, Samples
from razorlight.data.segmentation import SegmentationData
from razorlight.data.sets.class_names import VOC_CLASSES

_REMEDY = "set root, or download: true on a machine online"


class VOC2012(SegmentationData):
    """PASCAL VOC 2012, segmentation: background and 20 classes of objects.

    1,464 training and 1,449 validation images; the test set has no public labels. On disk::

        root/VOCdevkit/VOC2012/JPEGImages/<stem>.jpg
        root/VOCdevkit/VOC2012/SegmentationClass/<stem>.png       indexed: 0..20, 255 at outlines
        root/VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt     a stem per line

    Licence: images by the terms of Flickr, annotations without a stated licence. Cite Everingham
    et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.

    Args:
        root: the folder that holds ``VOCdevkit``.
        download: Whether to fetch the data (2 GB) if they are not there.
        **kwargs: see :class:`SegmentationData`.

    Example:
        >>> data = VOC2012("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    class_names = VOC_CLASSES

    def __init__(self, root: str = "data", download: bool = True, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.download = download

    @property
    def splits(self) -> tuple[Split, ...]:
        """Training and validation; the test labels are not public."""
        return ("train", "val")

    def prepare_data(self) -> None:
        """Download the data if that is wanted, and check that they are there.

        Raises:
            RazorError: if they are not.
        """
        absent = not (self.root / "VOCdevkit" / "VOC2012").is_dir()
        with self._explained():
            datasets.VOCSegmentation(self.root, download=self.download and absent)

    def samples(self, split: Split) -> Samples:
        """The images and masks of a split, in the order of its list."""
        return PairedImages(self._listed(split), LabelCoding(range(self.num_classes)))

    def _listed(self, split: Split) -> list[tuple[Path, Path]]:
        with self._explained():
            return self._pairs(datasets.VOCSegmentation(self.root, image_set=split))

    def _pairs(
        self, source: datasets.VOCSegmentation | datasets.SBDataset
    ) -> list[tuple[Path, Path]]:
        found = zip(source.images, source.masks, strict=True)
        below = partial(require_below, self.root)
        pairs = [(below(image), below(mask)) for image, mask in found]
        require_pairs(pairs, _REMEDY)
        return pairs

    def _explained(self) -> AbstractContextManager[None]:
        return missing_data(type(self).__name__, self.root, _REMEDY)


class VOCAug(VOC2012):
    """VOC 2012 with the training images that SBD annotates: 10,582 to train, 1,449 to validate.

    The list known as ``trainaug``: VOC's own training images and masks, and those of SBD's 11,355
    that are in neither of VOC's splits. Validation is VOC's. On disk, beside ``VOCdevkit``::

        root/sbd/img/<stem>.jpg
        root/sbd/cls/<stem>.mat            GTcls.Segmentation, uint8: 0..20
        root/sbd/{train,val}.txt           a stem per line

    Licence of SBD: images by the terms of Flickr, annotations without a stated licence. Cite,
    beside VOC, Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.

    Args:
        root: the folder that holds ``VOCdevkit`` and ``sbd``.
        download: Whether to fetch data that are not there (2 GB and 1.4 GB).
        **kwargs: see :class:`SegmentationData`.

    Example:
        >>> data = VOCAug("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    def prepare_data(self) -> None:
        """Download the data of both if that is wanted, and check that they are there.

        Raises:
            RazorError: if they are not.
        """
        super().prepare_data()
        absent = not (self.root / "sbd").is_dir()
        with self._explained():
            datasets.SBDataset(self.root / "sbd", download=self.download and absent)

    def samples(self, split: Split) -> Samples:
        """The images and masks of a split, VOC's before those of SBD."""
        if split == "val":
            return super().samples(split)
        numbers, own = range(self.num_classes), self._listed(split)
        added = self._added({image.stem for image, _ in [*own, *self._listed("val")]})
        return ConcatDataset(
            [PairedImages(own, LabelCoding(numbers)), PairedImages(added, _SBDCoding(numbers))]
        )

    def _added(self, known: set[str]) -> list[tuple[Path, Path]]:
        """The images and masks of SBD whose stems VOC does not list."""
        with self._explained():
            parts = [datasets.SBDataset(self.root / "sbd", part) for part in ("train", "val")]
            found = [pair for part in parts for pair in self._pairs(part)]
        return [pair for pair in found if pair[0].stem not in known]


class _SBDCoding(LabelCoding):
    def decode(self, path: Path) -> NDArray[np.integer[Any]]:
        """The numbers of a MATLAB file of SBD (H, W).

        Raises:
            RazorError: if the file cannot be read or lacks them.
        """
        with readable("mask", path):
            numbers = loadmat(path)["GTcls"][0]["Segmentation"][0]
            return numbers.astype(np.uint16, casting="safe")
