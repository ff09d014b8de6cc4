"""Windows of large images: to train at random places, to judge and to predict side by side."""

from bisect import bisect_right
from collections.abc import Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset
from torchvision import tv_tensors

from razorlight.data.image_readers import HeightWidth, ImageReader, Window
from razorlight.data.label_coding import LabelCoding
from razorlight.data.normalisation import random_window
from razorlight.data.predict_folder import COVERED, PredictFolder
from razorlight.data.rasters import mask_head, read_numbers_within
from razorlight.data.transforms import IGNORE_INDEX
from razorlight.errors import RazorError

EMPTY = 2
"""Value of the mask of a window to predict where all bands are without data."""


class Tiling:
    """Windows side by side over several images, by one index. None is kept, however many.

    Args:
        sizes: height and width of each image.
        step: height and width of the windows.
    """

    def __init__(self, sizes: Sequence[HeightWidth], step: HeightWidth) -> None:
        self.sizes, self.step = sizes, step
        self._ends = [*accumulate(rows * columns for rows, columns in map(self._shape, sizes))]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[int, Window]:
        """The image of a window, and its place there."""
        number = bisect_right(self._ends, index)
        before = self._ends[number - 1] if number else 0
        columns = self._shape(self.sizes[number])[1]
        row, column = divmod(index - before, columns)
        top, left = row * self.step[0], column * self.step[1]
        height, width = self.sizes[number]
        return number, Window(
            top, left, min(self.step[0], height - top), min(self.step[1], width - left)
        )

    def _shape(self, size: HeightWidth) -> tuple[int, int]:
        """How many windows lie below and beside each other."""
        return -(-size[0] // self.step[0]), -(-size[1] // self.step[1])


class RasterWindows(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """Windows of images with masks; gives ``(image (bands, h, w), mask uint8 (h, w))``.

    In order, they lie side by side and cover each pixel once. At random, each lies anywhere in the
    same image, so that an epoch has as many as would cover the images once. Images and masks are
    never read whole. Pixels without data in all bands are ignored in the mask.

    Args:
        pairs: the files of images and masks.
        reader: how numbers in the masks stand for classes.
        images: the reader of the images.
        side: height and width of the windows; those at an edge may be smaller.
        at_random: Whether windows lie at random.

    Raises:
        RazorError: if a head cannot be read, images have unlike bands, or a mask has another size
            than its image.
    """

    TRIES = 10
    """How often a random window is drawn again that has no pixel with a class."""

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        reader: LabelCoding,
        images: ImageReader,
        side: HeightWidth,
        at_random: bool,
    ) -> None:
        self.pairs, self.reader, self.images, self.at_random = pairs, reader, images, at_random
        self._ignored: dict[int, Path] = {}
        self.tiling = Tiling([self._size(*pair) for pair in pairs], side)
        self._say_what_is_ignored()

    def __len__(self) -> int:
        return len(self.tiling)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        number, window = self.tiling[index]
        if not self.at_random:
            return self._read(number, window)
        for _ in range(self.TRIES):
            window = random_window(self.tiling.sizes[number], self.tiling.step)
            image, mask = self._read(number, window)
            if (mask != IGNORE_INDEX).any():
                break
        return image, mask

    def target(self, index: int) -> tv_tensors.Mask:
        """The mask of a window in order, without its image."""
        number, window = self.tiling[index]
        return self._mask(number, window)

    def in_order(self) -> "RasterWindows":
        """The same images by windows side by side."""
        same = copy(self)
        same.at_random = False
        return same

    def files(self, index: int) -> tuple[Path, Path]:
        """The files of a window."""
        return self.pairs[self.tiling[index][0]]

    def _read(self, number: int, window: Window) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image, mask = self.images.read(self.pairs[number][0], window), self._mask(number, window)
        mask[image.isnan().all(0)] = IGNORE_INDEX
        return image, mask

    def _mask(self, number: int, window: Window) -> tv_tensors.Mask:
        path = self.pairs[number][1]
        numbers, absent = read_numbers_within(path, window)
        return self.reader.labels(numbers, path, absent)

    def _size(self, image: Path, mask: Path) -> HeightWidth:
        size, (of_mask, nodata) = self.images.size(image), mask_head(mask)
        if size != of_mask:
            raise RazorError(
                f"{image} is {size[0]}x{size[1]} pixels high and wide, "
                f"{mask} {of_mask[0]}x{of_mask[1]}; they must be equal"
            )
        named = self.reader.label_map or {}
        if nodata is not None and nodata in self.reader.numbers and nodata not in named:
            self._ignored.setdefault(int(nodata), mask)
        return size

    def _say_what_is_ignored(self) -> None:
        for number, mask in self._ignored.items():
            rank_zero_info(
                f"{number} is ignored in {mask} and the like, whose nodata it is; "
                f"to read it as a class, set label_map: {{{number}: CLASS}}"
            )


class PredictWindows(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """Windows of the images of a folder; gives ``(image (bands, h, w), mask uint8 (h, w))``.

    The windows overlap. The mask is :data:`COVERED` or, where there are no data, :data:`EMPTY` in
    the core of the window, and 0 around it. The cores lie side by side, and cover each pixel once.

    Args:
        folder: the images.
        side: height and width of the windows; smaller images are smaller windows.

    Raises:
        RazorError: if the head of an image cannot be read, or images have unlike bands.
    """

    def __init__(self, folder: PredictFolder, side: HeightWidth) -> None:
        self.folder, self.side = folder, side
        sizes = [folder.images.size(path) for path in folder.files]
        self.tiling = Tiling(sizes, (core_side(side[0]), core_side(side[1])))

    def __len__(self) -> int:
        return len(self.tiling)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        number, core = self.tiling[index]
        window = self._around(core, self.tiling.sizes[number])
        image = self.folder.images.read(self.folder.files[number], window)
        mask = torch.zeros(image.shape[-2:], dtype=torch.uint8)
        within = core.less(window).within
        mask[within] = torch.where(image.isnan().all(0)[within], EMPTY, COVERED).to(mask.dtype)
        return image, tv_tensors.Mask(mask)

    def _around(self, core: Window, size: HeightWidth) -> Window:
        """The window with a core in its middle, or at the edge of the image."""
        top, height = _span(core.top, core.height, self.side[0], size[0])
        left, width = _span(core.left, core.width, self.side[1], size[1])
        return Window(top, left, height, width)


def core_side(side: int) -> int:
    """The side of a core: about two thirds of that of the window, and a multiple of 16."""
    return max(side * 2 // 3 // 16 * 16, min(side, 16))


def _span(start: int, length: int, side: int, whole: int) -> tuple[int, int]:
    """Where a span of ``side`` pixels about another one begins, and how long it is."""
    side = min(side, whole)
    begin = min(max(0, start - (side - length) // 2), whole - side)
    return begin, side
