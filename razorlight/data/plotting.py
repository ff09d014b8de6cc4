"""Pictures of batches."""

from collections.abc import Sequence
from math import ceil
from textwrap import fill

import torch
from matplotlib.figure import Figure
from torch import Tensor

from razorlight.data.transforms import Channels

COLUMNS = 4
"""Panels in a row."""


def denormalise(image: Tensor, mean: Channels, std: Channels) -> Tensor:
    """The picture behind a normalised image.

    Args:
        image: float (3, H, W).
        mean: of the normalisation, per channel, for values in 0..1.
        std: likewise.

    Returns:
        Uint8 (3, H, W), on the CPU.
    """
    scale, shift = (torch.tensor(channels).view(3, 1, 1) for channels in (std, mean))
    return ((image.float().cpu() * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)


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
