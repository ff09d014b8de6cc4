"""Small GeoTIFFs, made by rasterio: bands that are bright where their class is."""

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import ArrayLike
from rasterio.transform import from_origin

PLACE = from_origin(500_000, 4_600_000, 10, 10)
CRS = "EPSG:32633"
DTYPES = {"uint8": (20, 200), "uint16": (300, 4000), "float32": (-0.5, 2.5), "int16": (-200, 900)}
"""The values of dark and of bright pixels."""


def write_raster(path: Path, values: ArrayLike, place=PLACE, **profile) -> Path:
    """Write bands (bands, height, width), or one of them (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(
        path, "w", driver="GTiff", crs=CRS if place else None, transform=place, **shape, **profile
    ) as file:
        file.write(values)
    return path


def labels(height: int, width: int) -> np.ndarray:
    """Class 1 in a square in the middle, class 0 around it."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    return mask


def bands(mask: np.ndarray, count: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Bands in which class 1 is bright."""
    dark, bright = DTYPES[dtype]
    noise = np.random.default_rng(seed).uniform(0.8, 1.2, (count, *mask.shape))
    return (noise * np.where(mask == 1, bright, dark)).astype(dtype)


def tiles(root: Path, count: int, dtype: str, number: int = 5, side: int = 48, **profile) -> None:
    """A folder for SegmentationFolder: masks are GeoTIFFs too."""
    for name in range(number):
        mask = labels(side, side + 8 * name)
        write_raster(root / f"images/{name}.tif", bands(mask, count, dtype, name), **profile)
        write_raster(root / f"masks/{name}.tif", mask)
