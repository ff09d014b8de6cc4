"""Pictures of batches."""

from collections.abc import Sequence
from math import ceil
from textwrap import fill

from matplotlib.figure import Figure
from torch import Tensor

COLUMNS = 4
"""Panels in a row."""


def draw_samples(images: Sequence[Tensor], targets: Sequence[str | Tensor]) -> Figure:
    """Lay out images in a grid, each with its target.

    Args:
        images: pictures, uint8 (3, H, W) each.
        targets: for each image a caption, or a picture, uint8 (3, H, W), that goes beside it.
    """
    panels: list[tuple[Tensor, str]] = []
    for image, target in zip(images, targets, strict=True):
        if isinstance(target, str):
            panels.append((image, fill(target, 28)))
        else:
            panels += [(image, ""), (target, "")]
    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(2.4 * columns, 2.6 * rows), dpi=120, layout="constrained")
    for place, (picture, caption) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(picture.permute(1, 2, 0).numpy())
        axes.set_title(caption, fontsize=9)
        axes.set_axis_off()
    return figure
