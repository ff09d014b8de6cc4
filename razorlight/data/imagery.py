"""How a data module reads, normalises and shows its images: pictures, or rasters of any bands."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from razorlight.data.files import first_image
from razorlight.data.held_out import Split
from razorlight.data.image_readers import PICTURES, ImageReader
from razorlight.data.normalisation import Normalisation, measure
from razorlight.data.pictures import denormalise, stretch
from razorlight.data.rasters import Rasters, reader_of
from razorlight.data.samples import Samples
from razorlight.data.targets import image_files
from razorlight.errors import RazorError


class Imagery:
    """Pictures, with the mean and standard deviation of the configuration.

    Args:
        given: that mean and standard deviation.
    """

    def __init__(self, given: Normalisation) -> None:
        self.given = given

    @property
    def reader(self) -> ImageReader:
        """The reader of the images that have targets."""
        return PICTURES

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each channel."""
        return self.given

    def reader_to_predict(self, folder: Path) -> ImageReader:
        """The reader of the images of another folder.

        Raises:
            RazorError: if they are not as those that have targets.
        """
        return PICTURES

    def facts(self) -> dict[str, Any]:
        """What a network must know of its images. Checkpoints hold it."""
        return {"mean": [*self.normalisation.mean], "std": [*self.normalisation.std]}

    def take(self, facts: dict[str, Any]) -> None:
        """Take from a checkpoint what is not in the configuration; of pictures, nothing."""

    def picture(self, image: Tensor) -> Tensor:
        """A normalised image (bands, H, W) as a picture, uint8 (3, H, W)."""
        return denormalise(image, self.normalisation.mean, self.normalisation.std)


class _Source(Protocol):
    """What is asked of a data module."""

    predict_folder: str | None

    def samples(self, split: Split) -> Samples: ...


class FolderImagery(Imagery):
    """Images of one's own: pictures as ever, or rasters of any number of bands.

    The first image says which (see :func:`razorlight.data.rasters.is_raster`). Mean and standard
    deviation of the configuration are those of pictures, and of three bands of 8 bits. Those of
    other bands are measured on the training images, and checkpoints hold them.

    Args:
        given: mean and standard deviation of the configuration.
        data: the data module.
        folder: the folder that all images with targets are below.
        bands: numbers of the bands to read, counted from 1; None for all, and for pictures.
    """

    def __init__(
        self, given: Normalisation, data: _Source, folder: Path, bands: Sequence[int] | None
    ) -> None:
        super().__init__(given)
        self.data, self.folder, self.bands = data, folder, bands
        self._measured: Normalisation | None = None

    @cached_property
    def reader(self) -> ImageReader:
        """The reader of the images that have targets; without any, that of images to predict.

        Raises:
            RazorError: if the first image cannot be read, or lacks a band.
        """
        to_predict = self.data.predict_folder
        first = first_image(self.folder, Path(to_predict) if to_predict else None)
        return reader_of(first, self.bands)

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each band, measured once.

        Raises:
            RazorError: if they must be measured, and training images are missing.
        """
        if self.reader.are_colours:
            return self.given
        self._measured = self._measured or self._measure()
        return self._measured

    def _measure(self) -> Normalisation:
        try:
            samples = self.data.samples("train")
        except RazorError as error:
            raise RazorError(
                "mean and standard deviation of the bands are measured on training images, or read "
                f"from a checkpoint; give --ckpt_path, or the images: {error}"
            ) from error
        files = image_files(samples)
        found = measure(files, self.reader)
        rank_zero_info(
            f"{self.reader.describe(files[0])}: mean and standard deviation of each band "
            "are those of the training images; augmentation moves pixels, and changes no values"
        )
        return found

    def reader_to_predict(self, folder: Path) -> ImageReader:
        """The reader of the images of another folder.

        Raises:
            RazorError: if they have other bands, or are of other numbers, than those with targets.
        """
        first = first_image(folder)
        reader, trained = reader_of(first, self.bands), self.reader
        alike = reader.num_bands == trained.num_bands
        if first and not (alike and reader.are_colours == trained.are_colours):
            raise RazorError(
                f"predict_folder: {first} is {reader.describe(first)}, and training images are "
                f"read with {trained.num_bands} bands; give images of one kind, or set bands"
            )
        return reader

    def facts(self) -> dict[str, Any]:
        """Also the bands, and their dtype."""
        return super().facts() | _kind(self.reader)

    def take(self, facts: dict[str, Any]) -> None:
        """Take the mean and standard deviation that the network was trained with.

        Raises:
            RazorError: if it was trained on other bands.
        """
        held: dict[str, Any] = {key: facts[key] for key in _KIND if key in facts}
        if self.reader.are_colours and held.get("dtype", "uint8") == "uint8":
            return
        if held != _kind(self.reader):
            raise RazorError(
                f"the network was trained on {_named(held)}, and the images are "
                f"{_named(_kind(self.reader))}; give images of one kind, and the same bands"
            )
        self._measured = Normalisation(facts["mean"], facts["std"])

    def picture(self, image: Tensor) -> Tensor:
        """A normalised image as a picture; its first three bands where they are no colours."""
        return super().picture(image) if self.reader.are_colours else stretch(image)


_KIND = ("bands", "dtype")


def _kind(reader: ImageReader) -> dict[str, Any]:
    if not isinstance(reader, Rasters):
        return {}
    return dict(zip(_KIND, ([*reader.bands], reader.dtype), strict=True))


def _named(kind: dict[str, Any]) -> str:
    return f"bands {kind['bands']} of {kind['dtype']}" if kind else "pictures"
