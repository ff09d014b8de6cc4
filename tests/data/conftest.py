"""Writers of small files in the data sets' own formats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from PIL import Image

from razorlight.data.palette import voc_palette


@pytest.fixture
def write_jpeg() -> Callable[..., Path]:
    def write(path: Path, height: int = 40, width: int = 56) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(path, "JPEG")
        return path

    return write


@pytest.fixture
def write_mask() -> Callable[..., Path]:
    """PNGs with a palette, as annotation tools write them."""

    def write(path: Path, labels: ArrayLike) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.asarray(labels, np.uint8))
        image.putpalette([channel for colour in voc_palette(256) for channel in colour])
        image.save(path)
        return path

    return write
