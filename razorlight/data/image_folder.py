"""Classification over folders of images."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from razorlight.data.classification import ClassificationData
from razorlight.data.files import images_below, require_folder, subfolders
from razorlight.data.held_out import HeldOut, Split
from razorlight.data.imagery import FolderImagery
from razorlight.data.samples import LabelledImages
from razorlight.errors import RazorError


class ImageFolder(ClassificationData):
    """One folder per class; the names of the folders are the names of the classes.

    On disk::

        root/train/<class>/*.jpg    any format that PIL reads, at any depth below the class
        root/val/<class>/*.jpg
        root/test/<class>/*.jpg     optional

    Without ``val``, a share of the images of each class in ``train`` is held out in its place. The
    folders of the classes may then lie in ``root`` itself, as ``root/<class>/*.jpg``.

    The classes are those of ``train``, sorted; another split may lack some, but not add any.

    GeoTIFFs and other TIFFs that are no pictures may have any number of bands, of whole numbers or
    floats (``pip install "razorlight[geo]"``; see :class:`SegmentationFolder`).

    Args:
        root: the folder that holds the data.
        image_size: side of the square images, in pixels.
        val_fraction: share of the images that is held out where there is no ``val``, in (0, 1);
            None to refuse such a folder.
        split_seed: seed of that division.
        val_fold: which of the shares is held out, from 0; those of all folds are the whole.
        bands: numbers of the bands to read, counted from 1 as GDAL does, such as ``[4, 3, 2]``;
            None for all. Given, every image is read by rasterio, pictures too.
        **kwargs: see :class:`ClassificationData`.

    Raises:
        RazorError: for a fraction out of its range.

    Example:
        >>> data = ImageFolder("my_data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    remedy: ClassVar[str] = (
        "ImageFolder reads root/{train,val[,test]}/<class>/*.jpg or root/<class>/*.jpg: set root"
    )

    def __init__(
        self,
        root: str = "data",
        image_size: int = 224,
        val_fraction: float | None = 0.2,
        split_seed: int = 0,
        val_fold: int = 0,
        bands: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, image_size, **kwargs)
        self.imagery = FolderImagery(self.imagery.given, self, self.root, bands)
        self.held_out = HeldOut(val_fraction, split_seed, val_fold)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # read when first asked for
        """The sorted names of the folders of the training images.

        Raises:
            RazorError: if there are none.
        """
        return self.folder_names

    @property
    def folder_names(self) -> tuple[str, ...]:
        """The folders of the classes, by class id.

        Raises:
            RazorError: if there are none.
        """
        names = self._subfolders("train")
        if not names:
            raise RazorError(f"no class folders in {self.folder('train')}; {self.remedy}")
        return names

    @property
    def splits(self) -> tuple[Split, ...]:
        """``test`` only where there is such a folder."""
        return ("train", "val", "test") if self.folder("test").is_dir() else ("train", "val")

    def folder(self, split: Split) -> Path:
        """The folder of the classes of a split."""
        return self.held_out.source(self.root, split)

    def samples(self, split: Split) -> LabelledImages:
        """The images of a split, in the order of their classes."""
        found = self._found(split)
        if self.held_out.divides(self.root, split):
            files, labels = zip(*found, strict=True)
            chosen = self.held_out.part(files, self.folder(split), split, labels)
            found = [found[index] for index in chosen]
        return LabelledImages(found, self.class_names, self.images)

    def _found(self, split: Split) -> list[tuple[Path, int]]:
        """The images and classes of the folder of a split."""
        folder, names = self.folder(split), self.folder_names
        unknown = sorted(set(self._subfolders(split)) - set(names))
        if unknown:
            raise RazorError(f"{folder} has classes that train lacks: {', '.join(unknown[:3])}")
        found = [
            (path, label)
            for label, name in enumerate(names)
            for path in images_below(folder / name, follow_links=True)
        ]
        if not found:
            raise RazorError(f"no images in the class folders of {folder}; {self.remedy}")
        _require_once(sorted({os.path.dirname(path) for path, _ in found}))
        return found

    def _subfolders(self, split: Split) -> tuple[str, ...]:
        folder = self.folder(split)
        require_folder(folder, self.remedy)
        return tuple(subfolders(folder))


def _require_once(folders: Sequence[str]) -> None:
    """Refuse two paths of one folder: a symbolic link may lead back to it, also in a circle."""
    seen: dict[str, str] = {}
    for folder in folders:
        first = seen.setdefault(os.path.realpath(folder), folder)
        if first != folder:
            raise RazorError(f"{folder} is {first} again, by a symbolic link; remove the link")
