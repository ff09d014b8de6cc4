"""Samples of a data set: pairs of image and target, and the kinds that lie in files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from razorlight.data.image_readers import PICTURES, ImageReader
from razorlight.data.reading import AS_IT_IS, read_image, read_orientation, upright
from razorlight.errors import RazorError


class Samples(Protocol):
    """A map-style data set of ``(image, target)``, whatever it derives from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class LabelledSamples(Samples, Protocol):
    """Samples whose targets are class ids."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, by id."""


class MapReader(Protocol):
    """Reads files that hold a number for each pixel."""

    def read(self, path: Path) -> tv_tensors.Mask:
        """Read a file to a map (H, W), of the reader's own dtype.

        Raises:
            RazorError: if the file cannot be read or is of another kind.
        """


class TargetedImages(Dataset[tuple[tv_tensors.Image, Any]]):
    """Image files with a target each; gives ``(image (bands, H, W), target)``.

    Args:
        files: the files of the images.
        targets: one for each file: class ids; or the rows of a tensor, which classes an image has,
            bool (files, classes), or its numbers, float32 (files, targets).
        images: reader of the images, by default that of pictures: uint8 (3, H, W).
    """

    def __init__(
        self,
        files: Sequence[Path],
        targets: Sequence[int] | Tensor,
        images: ImageReader = PICTURES,
    ) -> None:
        self.files = files
        self.targets = targets
        self.images = images

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Any]:
        return self.images.read(self.files[index]), self.targets[index]

    def target(self, index: int) -> Any:
        """The target of a sample, without its image."""
        return self.targets[index]


class LabelledImages(TargetedImages):
    """Image files with a class each; gives ``(image (bands, H, W), class)``.

    Args:
        samples: the files and their classes.
        classes: the names of the classes.
        images: reader of the images, by default that of pictures: uint8 (3, H, W).
    """

    def __init__(
        self,
        samples: Sequence[tuple[Path, int]],
        classes: Sequence[str],
        images: ImageReader = PICTURES,
    ) -> None:
        files, labels = [file for file, _ in samples], [label for _, label in samples]
        super().__init__(files, labels, images)
        self.classes = classes


class PairedImages(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """Image files with a map of the same size each; gives ``(image uint8 (3, H, W), map (H, W))``.

    Both come the way up that a viewer shows them. A map without an EXIF orientation may have been
    drawn on the stored image: if it has the size of the image only then, it is turned alike.

    Args:
        pairs: the files of images and maps.
        reader: reader of the maps, for masks a :class:`razorlight.data.label_coding.LabelCoding`.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], reader: MapReader) -> None:
        self.pairs = pairs
        self.reader = reader

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image_path, map_path = self.pairs[index]
        image, target = read_image(image_path), self.reader.read(map_path)
        if image.shape[-2:] != target.shape:
            target = _turned_alike(target, image_path, map_path)
        if image.shape[-2:] != target.shape:
            raise RazorError(
                f"{image_path} is {image.shape[-2]}x{image.shape[-1]} pixels high and wide, "
                f"{map_path} {target.shape[0]}x{target.shape[1]}; they must be equal"
            )
        return image, target

    def target(self, index: int) -> tv_tensors.Mask:
        """The map of a sample as it lies in its file, without its image."""
        return self.reader.read(self.pairs[index][1])


def _turned_alike(target: tv_tensors.Mask, image: Path, map: Path) -> tv_tensors.Mask:
    """A map without an EXIF orientation, turned as its image is.

    A tool that ignores EXIF data drew such a map on the stored image.
    """
    if read_orientation(map) != AS_IT_IS:
        return target
    values = upright(target.numpy(), read_orientation(image))
    return tv_tensors.Mask(torch.from_numpy(values.copy()))
