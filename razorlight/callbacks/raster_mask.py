"""A predicted mask as a GeoTIFF, written window by window."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from razorlight.data.image_readers import HeightWidth, Window
from razorlight.data.pictures import full_palette
from razorlight.data.predict_folder import COVERED
from razorlight.data.raster_samples import EMPTY
from razorlight.data.rasters import created, opened, to_rasterio
from razorlight.data.transforms import IGNORE_INDEX
from razorlight.protocols import Palette


class RasterMask:
    """A GeoTIFF of class ids with the place on the earth of an image, 255 for no data.

    Args:
        path: the new file.
        source: the image.
        step: height and width of the windows that come; those of 16 pixels each are its blocks.
        palette: colours of the classes.
    """

    def __init__(self, path: Path, source: Path, step: HeightWidth, palette: Palette) -> None:
        self.source = source
        with opened("image", source) as file:
            profile: dict[str, Any] = {
                "driver": "GTiff",
                "height": file.height,
                "width": file.width,
                "count": 1,
                "dtype": "uint8",
                "nodata": IGNORE_INDEX,
                "crs": file.crs,
                "transform": file.transform,
                "compress": "deflate",
                "BIGTIFF": "IF_SAFER",
            }
        if not step[0] % 16 and not step[1] % 16:  # then no block is written twice
            profile |= {"tiled": True, "blockysize": step[0], "blockxsize": step[1]}
        self._file = created(path, profile)
        colours = full_palette(palette).tolist()
        self._file.write_colormap(1, {label: tuple(colour) for label, colour in enumerate(colours)})

    def write(self, core: Window, labels: Tensor, region: Tensor) -> None:
        """Write the core of a window.

        Args:
            core: its place in the image.
            labels: class ids of the window, (H, W).
            region: mask of the window, as :class:`PredictWindows` gives it.
        """
        rows, columns = torch.where((region == COVERED) | (region == EMPTY))
        top, left = int(rows[0]), int(columns.min())
        within = core._replace(top=top, left=left).within
        values = labels[within].to(torch.uint8)
        values[region[within] == EMPTY] = IGNORE_INDEX
        self._file.write(values.numpy(), 1, window=to_rasterio(core))

    def close(self) -> None:
        """Write what is left."""
        self._file.close()
