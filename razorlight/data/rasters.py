"""Images of any number of bands, by rasterio: satellite and aerial images, floats, 16 bits."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torchvision import tv_tensors

from razorlight.data.image_readers import PICTURES, HeightWidth, ImageReader, Window
from razorlight.data.reading import open_image, readable
from razorlight.errors import RazorError

Values = NDArray[Any]


@dataclass(frozen=True)
class Rasters:
    """Files of numbers in bands; gives float32 (bands, H, W), NaN where there are no data.

    Bands of 8 bits are given in 0..1, others as they are stored.

    Attributes:
        bands: numbers of the bands that are read, counted from 1.
        dtype: dtype of all files, such as ``uint16``.
        are_all: Whether these are all bands of the files.
    """

    bands: tuple[int, ...]
    dtype: str
    are_all: bool

    @classmethod
    def like(cls, path: Path, bands: Sequence[int] | None) -> "Rasters":
        """The reader of files like a given one.

        Args:
            path: the file.
            bands: numbers of the bands to read, counted from 1; None for all.

        Raises:
            RazorError: if the file cannot be read, or a band is not there.
        """
        with opened("image", path) as file:
            every = tuple(range(1, file.count + 1))
            reader = cls(tuple(bands or every), file.dtypes[0], bands is None)
            if np.dtype(reader.dtype).kind not in "uif":
                raise RazorError(
                    f"image {path} holds {reader.dtype}; save it as whole numbers or floats"
                )
            reader._require_alike(file, path)
        return reader

    @property
    def num_bands(self) -> int:
        """How many bands are read."""
        return len(self.bands)

    @property
    def are_colours(self) -> bool:
        """Whether they are three bands of 8 bits."""
        return self.num_bands == 3 and self.dtype == "uint8"

    def size(self, path: Path) -> HeightWidth:
        """Height and width; the file must be alike.

        Raises:
            RazorError: if the file cannot be read, or has other bands or another dtype.
        """
        with opened("image", path) as file:
            self._require_alike(file, path)
            return file.height, file.width

    def read(self, path: Path, window: Window | None = None) -> tv_tensors.Image:
        """Read an image or a window of it.

        Raises:
            RazorError: as :meth:`size` does.
        """
        with opened("image", path) as file:
            self._require_alike(file, path)
            stored = file.read(self.bands, window=to_rasterio(window))
            nodata = [file.nodatavals[band - 1] for band in self.bands]
        values = stored.astype(np.float32)
        for band, number in enumerate(nodata):
            if number is not None:
                values[band][stored[band] == number] = np.nan
        values[np.isinf(values)] = np.nan
        return tv_tensors.Image(torch.from_numpy(values / 255 if self.dtype == "uint8" else values))

    def blank(self, size: HeightWidth) -> tv_tensors.Image:
        """Zeros, float32."""
        return tv_tensors.Image(torch.zeros(self.num_bands, *size))

    def describe(self, path: Path) -> str:
        """The number of bands that are read, and their dtype."""
        return f"{self.num_bands} x {self.dtype}"

    def _require_alike(self, file: Any, path: Path) -> None:
        if self.are_all and file.count != self.num_bands:
            raise RazorError(
                f"image {path} has {file.count} bands, others have {self.num_bands}; "
                "set bands to those that all images have, such as bands: [1]"
            )
        strange = [band for band in self.bands if not 1 <= band <= file.count]
        if strange:
            raise RazorError(
                f"bands: there is no band {strange[0]} in {path}; its bands are 1 to {file.count}"
            )
        if file.dtypes[0] != self.dtype:
            raise RazorError(
                f"image {path} holds {file.dtypes[0]}, others hold {self.dtype}; "
                "convert it, or keep the two apart"
            )


def read_numbers_within(path: Path, window: Window) -> tuple[Values, Values]:
    """The numbers of a window of a mask, and where the file says that it has none.

    Returns:
        Numbers of the file's dtype, (H, W), or (H, W, C) for a file of several bands; and bool
        (H, W), True where the number is the file's nodata.

    Raises:
        RazorError: if the file cannot be read.
    """
    with opened("mask", path) as file:
        numbers = file.read(window=to_rasterio(window))
        nodata = file.nodata
    numbers = numbers[0] if len(numbers) == 1 else numbers.transpose(1, 2, 0)
    absent = np.zeros(numbers.shape[:2], bool) if nodata is None else _first(numbers) == nodata
    return numbers, absent


def mask_head(path: Path) -> tuple[HeightWidth, float | None]:
    """Height and width of a mask, and the number that stands for none, by the head of its file.

    Raises:
        RazorError: if the file cannot be read.
    """
    with opened("mask", path) as file:
        return (file.height, file.width), file.nodata


@contextmanager
def opened(what: str, path: Path) -> Iterator[Any]:
    """Open a file by rasterio.

    Args:
        what: kind of the file, for messages.
        path: the file.

    Raises:
        RazorError: if the file cannot be read, or rasterio is missing.
    """
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError as error:
        raise RazorError(
            f'{what} {path} is read by rasterio, which is missing; pip install "razorlight[geo]"'
        ) from error
    with readable(what, path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = rasterio.open(path, driver=_format_of(path))
        with file:
            yield file


def created(path: Path, profile: Mapping[str, Any]) -> Any:
    """A new file of rasterio's, which its user closes."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, "w", **profile)


_FORMATS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
"""GDAL's names of the formats, by how files begin. Some others lead to files elsewhere."""


def _format_of(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    found = next((name for start, name in _FORMATS.items() if head.startswith(start)), None)
    if found is None:
        raise OSError("it is no TIFF, PNG or JPEG")
    return found


def reader_of(path: Path | None, bands: Sequence[int] | None) -> ImageReader:
    """The reader of the images of a data set.

    Args:
        path: the first of them; None if there is none.
        bands: numbers of the bands to read, counted from 1. None for all, and for pictures as a
            viewer shows them.

    Raises:
        RazorError: as :meth:`Rasters.like` does, or for no bands.
    """
    if bands is not None and not bands:
        raise RazorError("bands: the list is empty; name a band, or leave bands out for all")
    if path is None:
        return PICTURES if bands is None else Rasters(tuple(bands), "uint8", False)
    return PICTURES if bands is None and not is_raster(path) else Rasters.like(path, bands)


def is_raster(path: Path) -> bool:
    """Whether a file is a TIFF that is more than a picture.

    That is one with a place on the earth, and one that Pillow cannot show: of floats, of colours of
    more than 8 bits, or of other numbers of bands. Without rasterio, a picture with a place on the
    earth is a picture.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        if _format_of(path) != "GTiff":
            return False
    except OSError:
        return False  # whoever reads it as a picture says what is wrong
    log = logging.getLogger("PIL.TiffImagePlugin")  # which speaks of what it cannot show
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with open_image(path) as picture:
            mode, tags = picture.mode, getattr(picture, "tag_v2", {})
    except Exception:  # of any kind: decoders raise whatever they stumble over
        return True
    finally:
        log.setLevel(level)
    is_placed = any(tag in tags for tag in _PLACED)
    if is_placed and mode == "RGB" and find_spec("rasterio") is None:
        rank_zero_info(
            f"{path} has a place on the earth, which is lost without rasterio; "
            'pip install "razorlight[geo]"'
        )
        return False
    return is_placed or mode == "F"


_PLACED = (33550, 34264)
"""The tags of a GeoTIFF that lay its pixels out on the earth: scale, or transformation."""


def to_rasterio(window: Window | None) -> Any:
    """A window as rasterio takes it."""
    return window and (
        (window.top, window.top + window.height),
        (window.left, window.left + window.width),
    )


def _first(numbers: Values) -> Values:
    return numbers if numbers.ndim == 2 else numbers[..., 0]
