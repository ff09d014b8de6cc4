"""Classification over folders of images."""

from pathlib import Path
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS, DatasetFolder

from razorlight.data.base import LabelledData, Split, require_at_least
from razorlight.data.datasets import LabelledImages, require_folder
from razorlight.data.transforms import Pipelines, classification
from razorlight.errors import RazorError


class ImageFolder(LabelledData):
    """One folder per class; the names of the folders are the names of the classes.

    On disk::

        root/train/<class>/*.jpg    any format that PIL reads, at any depth below the class
        root/val/<class>/*.jpg
        root/test/<class>/*.jpg     optional

    The classes are those of ``train``, sorted; another split may lack some, but not add any.

    Args:
        root: the folder that holds ``train`` and ``val``.
        image_size: side of the square images, in pixels.
        **kwargs: see :class:`RazorDataModule`.
    """

    def __init__(self, root: str, image_size: int = 224, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_at_least("image_size", image_size, 1)
        self.root = Path(root)
        self.image_size = image_size

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # read when first asked for
        """The sorted names of the folders below ``root/train``.

        Raises:
            RazorError: if there are none.
        """
        names = self._folders("train")
        if not names:
            raise RazorError(f"no class folders in {self.root / 'train'}; {self._remedy}")
        return names

    @property
    def splits(self) -> tuple[Split, ...]:
        """``test`` only where there is such a folder."""
        return ("train", "val", "test") if (self.root / "test").is_dir() else ("train", "val")

    def samples(self, split: Split) -> LabelledImages:
        """The images of a split, in the order of their classes."""
        folder = self.root / split
        unknown = sorted(set(self._folders(split)) - set(self.class_names))
        if unknown:
            raise RazorError(f"{folder} has classes that train lacks: {', '.join(unknown[:3])}")
        index = {name: label for label, name in enumerate(self.class_names)}
        found = DatasetFolder.make_dataset(str(folder), index, IMG_EXTENSIONS, allow_empty=True)
        if not found:
            raise RazorError(f"no images in the class folders of {folder}; {self._remedy}")
        return LabelledImages([(Path(path), label) for path, label in found])

    def pipelines(self) -> Pipelines:
        """Random resized crops to train, the centre to judge."""
        return classification(self.image_size, self.mean, self.std)

    @property
    def _remedy(self) -> str:
        return "ImageFolder reads root/{train,val[,test]}/<class>/*.jpg: set root"

    def _folders(self, split: Split) -> tuple[str, ...]:
        folder = self.root / split
        require_folder(folder, self._remedy)
        return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
