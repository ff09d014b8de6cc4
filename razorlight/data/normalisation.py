"""Mean and standard deviation of the bands of images that are no colours of 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from razorlight.data.image_readers import HeightWidth, ImageReader, Window
from razorlight.errors import RazorError

WINDOWS = 256
"""The most windows that are read, of as many images as can be."""

SIDE = 256
"""The side of the windows, in pixels."""


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from the values of each band, and what they are divided by.

    Attributes:
        mean: of each band, in the units in which the images are given.
        std: likewise.
    """

    mean: Sequence[float]
    std: Sequence[float]


def measure(files: Sequence[Path], images: ImageReader) -> Normalisation:
    """Mean and standard deviation of each band, over random windows that are always the same.

    Pixels without data are left out. A band that has one value alone gets a deviation of 1.

    Args:
        files: training images.
        images: their reader.

    Raises:
        RazorError: if a file cannot be read, or a band has no data.
    """
    generator = torch.Generator().manual_seed(0)
    draws = _draws(files, images, generator)
    count, first, second = (torch.zeros(images.num_bands, dtype=torch.float64) for _ in range(3))
    for path, size in draws:
        values = images.read(path, random_window(size, (SIDE, SIDE), generator))
        known = ~values.isnan()
        numbers = values.double().where(known, 0).flatten(1)
        count += known.flatten(1).sum(1)
        first += numbers.sum(1)
        second += (numbers**2).sum(1)
    if empty := (count == 0).nonzero().flatten().tolist():
        raise RazorError(
            f"the band at place {empty[0] + 1} has no data in {len(draws)} windows of training "
            "images; leave it out by bands"
        )
    mean = first / count
    std = (second / count - mean**2).clamp(min=0).sqrt()
    return Normalisation(mean.tolist(), std.where(std > 1e-6 * mean.abs(), 1).tolist())


def _draws(
    files: Sequence[Path], images: ImageReader, generator: torch.Generator
) -> list[tuple[Path, HeightWidth]]:
    """The images that windows are read of, and their sizes; large ones come several times."""
    order = torch.randperm(len(files), generator=generator)[:WINDOWS].tolist()
    sizes = {files[number]: images.size(files[number]) for number in order}
    rounds = [
        (turn, place)
        for place, size in enumerate(sizes.values())
        for turn in range(min(WINDOWS, -(-size[0] // SIDE) * -(-size[1] // SIDE)))
    ]
    drawn = [*sizes.items()]
    return [drawn[place] for _, place in sorted(rounds)[:WINDOWS]]


def random_window(
    size: HeightWidth, side: HeightWidth, generator: torch.Generator | None = None
) -> Window:
    """A window anywhere in an image.

    Args:
        size: height and width of the image.
        side: height and width of the window, which is smaller where the image is.
        generator: source of the numbers; torch's own if None.
    """
    height, width = (min(pair) for pair in zip(size, side, strict=True))
    room = size[0] - height, size[1] - width
    top, left = (int(torch.randint(each + 1, (), generator=generator)) for each in room)
    return Window(top, left, height, width)


def fill_nodata(image: Tensor, mean: Sequence[float]) -> Tensor:
    """An image (bands, H, W) whose missing values are the mean of the band."""
    return image.where(~image.isnan(), torch.tensor(mean, dtype=image.dtype).view(-1, 1, 1))
