"""Reading image files: a picture as a viewer shows it, and maps whose values are numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torchvision import tv_tensors

from razorlight.errors import RazorError

Values = NDArray[Any]

AS_IT_IS = 1
"""The EXIF orientation of a picture that is stored the way up that it is shown."""

_TURNS: dict[object, Callable[[Values], Values]] = {
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values.swapaxes(0, 1)[::-1, ::-1],
    8: lambda values: np.rot90(values),
}
"""Functions that turn a stored picture (H, W, ...) upright, by its EXIF orientation."""


def open_image(path: str | Path) -> Image.Image:
    """Open an image file of a format that data sets come in, which its content tells.

    PIL knows some fifty more, among them EPS, which it hands to another program to run.

    Raises:
        OSError: if it is none of these.
    """
    return Image.open(path, formats=("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF"))


@contextmanager
def readable(what: str, path: str | Path) -> Iterator[None]:
    """Name the file that cannot be read.

    Args:
        what: kind of the file, for the message.
        path: the file.

    Raises:
        RazorError: if the file is missing, truncated, absurdly large, or of another kind.
    """
    try:
        yield
    except RazorError:
        raise
    except Exception as error:  # of any kind: decoders raise whatever they stumble over
        cause = error.__cause__ or error  # GDAL's own words, where rasterio speaks of an exception
        raise RazorError(f"cannot read {what} {path}: {cause}; replace or remove it") from error


def read_image(path: str | Path) -> tv_tensors.Image:
    """Decode any image file to RGB uint8 (3, H, W), as a viewer shows it.

    Every stage reads images by this function. It turns them as their EXIF data say, brings grey of
    16 bits to 8, and drops transparency.

    Raises:
        RazorError: if the file is missing, truncated or no image, or its values are neither of 8
            nor of 16 bits.
    """
    with readable("image", path), open_image(path) as image:
        colours = upright(np.asarray(_coloured(image, path)), orientation_of(image))
        return tv_tensors.Image(torch.from_numpy(colours.copy()).permute(2, 0, 1))


def read_numbers(what: str, path: Path) -> Values:
    """The numbers of a grey or indexed image file (H, W), exactly, turned as its EXIF data say.

    Args:
        what: kind of the file, for the message.
        path: the file.

    Returns:
        The numbers, of the file's own dtype; (H, W, C) for a file with colours.

    Raises:
        RazorError: if the file cannot be read.
    """
    with readable(what, path), open_image(path) as image:
        return upright(np.asarray(image), orientation_of(image))


def upright(values: Values, orientation: object) -> Values:
    """Stored values (H, W, ...) as they are shown, by an EXIF orientation."""
    return _TURNS[orientation](values) if orientation in _TURNS else values


def orientation_of(image: Image.Image) -> object:
    """The EXIF orientation that a loaded image still has; Pillow turns TIFFs when it loads them."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, AS_IT_IS)
    except Exception:  # of any kind: viewers show a picture with damaged EXIF data too
        return AS_IT_IS


def read_orientation(path: Path) -> object:
    """The EXIF orientation of a file, 1 to 8; 1 if it states none or is no image."""
    try:
        with open_image(path) as image:
            orientation = orientation_of(image)
    except Exception:  # of any kind: a map may be a file of MATLAB's
        return AS_IT_IS
    return orientation if orientation in _TURNS else AS_IT_IS


def _coloured(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image), path))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns where a palette's is dropped at once
    return image.convert("RGB")


def _eight_bits(values: Values, path: str | Path) -> NDArray[np.uint8]:
    highest = np.iinfo(np.uint16).max
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > highest:
        raise RazorError(
            f"image {path} has values of more than 16 bits; save it with 8 or 16 bits a channel"
        )
    if values.dtype.itemsize > 2 and 0 < values.max() < 256:
        raise RazorError(
            f"image {path} has values of 32 bits up to {values.max()}, nearly black as 16 bits; "
            "save it with 8 or 16 bits a channel"
        )
    return (values // (highest // 255)).astype(np.uint8)
