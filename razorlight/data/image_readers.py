"""How images come from files: as pictures by Pillow, or as bands of numbers by rasterio."""

from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torchvision import tv_tensors

from razorlight.data.reading import open_image, orientation_of, read_image, readable

HeightWidth = tuple[int, int]


class Window(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        top: first row.
        left: first column.
        height: number of rows.
        width: number of columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def within(self) -> tuple[slice, slice]:
        """The rows and columns of a tensor (H, W) that the window covers."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )

    def less(self, outer: "Window") -> "Window":
        """The same rectangle, counted from the first row and column of another window."""
        return self._replace(top=self.top - outer.top, left=self.left - outer.left)


class ImageReader(Protocol):
    """Reads the image files of a data set."""

    @property
    def num_bands(self) -> int:
        """How many bands, or channels, the images have."""

    @property
    def are_colours(self) -> bool:
        """Whether images are red, green and blue of 8 bits, as networks are trained on."""

    def size(self, path: Path) -> HeightWidth:
        """Height and width of an image, by the head of its file.

        Raises:
            RazorError: if the file is no such image.
        """

    def read(self, path: Path, window: Window | None = None) -> tv_tensors.Image:
        """Read an image (bands, H, W), or a window of it.

        Raises:
            RazorError: if the file cannot be read.
        """

    def blank(self, size: HeightWidth) -> tv_tensors.Image:
        """A black image, of the dtype that :meth:`read` gives."""

    def describe(self, path: Path) -> str:
        """The kind of a file in a word, such as ``RGB``."""


class Pictures:
    """Files as a viewer shows them: RGB, uint8 (3, H, W), by Pillow."""

    num_bands = 3
    are_colours = True

    def size(self, path: Path) -> HeightWidth:
        """Height and width as the image is shown."""
        with readable("image", path), open_image(path) as image:
            turned = orientation_of(image) in (5, 6, 7, 8)
            width, height = image.size
        return (width, height) if turned else (height, width)

    def read(self, path: Path, window: Window | None = None) -> tv_tensors.Image:
        """See :func:`razorlight.data.reading.read_image`."""
        image = read_image(path)
        return tv_tensors.Image(image[(..., *window.within)]) if window else image

    def blank(self, size: HeightWidth) -> tv_tensors.Image:
        """Black, uint8."""
        return tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8))

    def describe(self, path: Path) -> str:
        """Pillow's name of the mode of a file."""
        with readable("image", path), open_image(path) as image:
            return image.mode


PICTURES = Pictures()
