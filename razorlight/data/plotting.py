"""Pictures of batches, and of the shares of classes."""

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import fill
from types import MappingProxyType

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

COLUMNS = 4
"""Panels in a row."""


def draw_samples(
    images: Sequence[Tensor],
    targets: Sequence[str | Tensor],
    legend: Mapping[str, tuple[int, int, int]] = MappingProxyType({}),
) -> Figure:
    """Lay out images in a grid, each with its target.

    Args:
        images: pictures, uint8 (3, H, W) each.
        targets: for each image a caption, or a picture, uint8 (3, H, W), that goes beside it.
        legend: names of the colours in these pictures, RGB in 0..255.
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
    if legend:
        patches = [
            Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="grey", label=name)
            for name, (red, green, blue) in legend.items()
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=COLUMNS, frameon=False)
    return figure


def draw_shares(names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the share of each class, in percent, by split.

    Args:
        names: names of the classes.
        shares: for each split, the shares of the classes in 0..1.
    """
    classes, bar = len(names), 0.8 / max(1, len(shares))
    height = min(24.0, 1.2 + classes * (0.3 if classes <= NAMED else 0.04))
    figure = Figure(figsize=(8, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    for place, (split, values) in enumerate(shares.items()):
        rows = [label + bar * (place - (len(shares) - 1) / 2) for label in range(classes)]
        axes.barh(rows, [100 * value for value in values], bar, label=split)
    axes.set(xlabel="% of what has a class", ylim=(classes - 0.5, -0.5))
    axes.set_yticks(range(classes) if classes <= NAMED else [], names if classes <= NAMED else [])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    return figure


NAMED = 60
"""The most classes whose names stand at the axis."""
