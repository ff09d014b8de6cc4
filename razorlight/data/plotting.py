"""Pictures of batches, and of the shares of classes."""

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import fill
from types import MappingProxyType

from matplotlib.axes import Axes
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
        names: names of the classes. Of many classes the picture names none, and begins with those
            that are commonest in the first split.
        shares: for each split, the shares of the classes in 0..1.
    """
    named = len(names) <= NAMED
    height = 1.2 + 0.3 * len(names) if named else 4
    figure = Figure(figsize=(8, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    (_draw_bars if named else _draw_ranks)(axes, names, shares)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=COLUMNS, frameon=False)
    return figure


NAMED = 60
"""The most classes whose names stand at the axis."""


def _draw_bars(axes: Axes, names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> None:
    classes, width = len(names), 0.8 / max(1, len(shares))
    for place, (split, values) in enumerate(shares.items()):
        rows = [label + width * (place - (len(shares) - 1) / 2) for label in range(classes)]
        axes.barh(rows, [100 * value for value in values], width, label=split)
    axes.set(xlabel=_WHAT, ylim=(classes - 0.5, -0.5))
    axes.set_yticks(range(classes), names)


def _draw_ranks(axes: Axes, names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> None:
    first = next(iter(shares.values()))
    order = sorted(range(len(names)), key=lambda label: -first[label])
    # the first split lies over the others
    for split, values in reversed([*shares.items()]):
        percent = [100 * values[label] for label in order]
        axes.plot(range(1, len(names) + 1), percent, ".", markersize=3, label=split)
    axes.set(xlabel=f"{len(names)} classes, the commonest first", ylabel=_WHAT, ylim=(0, None))


_WHAT = "% of what has a class"
