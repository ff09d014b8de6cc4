"""Predictions as files, in formats that other programs read."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from razorlight.data.pictures import full_palette
from razorlight.data.predict_folder import COVERED
from razorlight.protocols import THRESHOLD, Palette

TOP = 5
"""The most classes that are named for each image."""

MILLIMETRES = 1000


def append_classes(
    path: Path, files: Sequence[object], probabilities: Tensor, names: Sequence[object]
) -> None:
    """Add a line to a CSV for each image: its file, and its likeliest classes with their chances.

    Args:
        path: the CSV; where there is none yet it begins with the names of the columns: ``file``,
            ``class``, ``probability``, ``class_2``, ``probability_2`` and so on up to five.
        files: files of the images, one for each row of ``probabilities``.
        probabilities: float (B, classes).
        names: names of the classes.
    """
    top = probabilities.topk(min(TOP, len(names)))
    ranks = ["", *(f"_{rank}" for rank in range(2, top.values.shape[1] + 1))]
    columns = [f"{column}{rank}" for rank in ranks for column in ("class", "probability")]
    rows: list[list[object]] = []
    for source, chances, labels in zip(files, top.values, top.indices, strict=True):
        pairs = zip(labels.tolist(), chances.tolist(), strict=True)
        cells = [cell for label, chance in pairs for cell in (names[label], f"{chance:.4f}")]
        rows.append([source, *cells])
    _append(path, ["file", *columns], rows)


def append_labels(
    path: Path, files: Sequence[object], probabilities: Tensor, names: Sequence[object]
) -> None:
    """Add a line to a CSV for each image: its file, its classes, and the chance of every class.

    Args:
        path: the CSV; where there is none yet it begins with the names of the columns: ``file``,
            ``labels``, and the names of the classes.
        files: files of the images, one for each row of ``probabilities``.
        probabilities: float (B, classes). From .5 on, the image has the class.
        names: names of the classes.
    """
    rows: list[list[object]] = []
    for source, chances in zip(files, probabilities.tolist(), strict=True):
        pairs = zip(names, chances, strict=True)
        present = ";".join(str(name) for name, chance in pairs if chance >= THRESHOLD)
        rows.append([source, present, *(f"{chance:.4f}" for chance in chances)])
    _append(path, ["file", "labels", *names], rows)


def append_numbers(
    path: Path, files: Sequence[object], numbers: Tensor, names: Sequence[object]
) -> None:
    """Add a line to a CSV for each image: its file, and its numbers.

    Args:
        path: the CSV; where there is none yet it begins with the names of the columns: ``file``,
            and the names of the numbers.
        files: files of the images, one for each row of ``numbers``.
        numbers: float (B, targets).
        names: names of the numbers.
    """
    rows: list[list[object]] = []
    for source, values in zip(files, numbers.tolist(), strict=True):
        rows.append([source, *(f"{value:.7g}" for value in values)])
    _append(path, ["file", *names], rows)


def _append(path: Path, columns: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    begins = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if begins:
            writer.writerow(columns)
        writer.writerows(rows)


def save_mask(path: Path, labels: Tensor, palette: Palette) -> None:
    """Write class ids, integer (H, W), as an indexed PNG."""
    picture = Image.fromarray(labels.to(torch.uint8).numpy())
    picture.putpalette(full_palette(palette).flatten().tolist())
    picture.save(path)


def save_depth(path: Path, metres: Tensor) -> None:
    """Write a depth map, float (H, W), as a grey PNG of 16 bits in millimetres.

    Depths above 65.535 m are written as 65.535 m.
    """
    steps = (metres.float() * MILLIMETRES).round().clamp(0, np.iinfo(np.uint16).max)
    Image.fromarray(steps.numpy().astype(np.uint16)).save(path)


def at_own_size(values: Tensor, region: Tensor, size: Sequence[int]) -> Tensor:
    """Bring a prediction to the size of its image file: cut the padding off, and resize.

    Args:
        values: class ids (resized by nearest neighbours) or metres (bilinearly), (H, W).
        region: the mask of :class:`PredictFolder` as the pipeline returned it, (H, W).
        size: height and width of the image in its file.

    Returns:
        The prediction, (height, width), of the dtype of ``values``.
    """
    rows, columns = torch.where(region == COVERED)
    shown = values[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    mode = InterpolationMode.BILINEAR if values.is_floating_point() else InterpolationMode.NEAREST
    return tvf.resize(shown[None], list(size), interpolation=mode, antialias=False)[0]
