"""Mask files: how the numbers in them stand for classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from razorlight.data.reading import read_numbers
from razorlight.data.transforms import IGNORE_INDEX
from razorlight.errors import RazorError


@dataclass(frozen=True)
class LabelCoding:
    """How the numbers in a mask file, 0 to 65535, stand for classes.

    Attributes:
        numbers: numbers of class 0, 1, ... in the file.
        ignored: numbers that become 255, the label that no loss or metric counts.
        label_map: classes of further numbers, or of some of these; 255 to ignore them. None where
            the data set says which numbers there are.

    Raises:
        RazorError: for a number or a class in ``label_map`` that there cannot be.
    """

    numbers: Sequence[int]
    ignored: Sequence[int] = (IGNORE_INDEX,)
    label_map: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        classes = len(self.numbers)
        for number, label in (self.label_map or {}).items():
            is_label = 0 <= label < classes or label == IGNORE_INDEX
            if not is_label or not 0 <= number < _NUMBERS:
                raise RazorError(
                    f"label_map: {number}: {label} is outside of the classes; map numbers, 0 to "
                    f"{_NUMBERS - 1}, to 0..{classes - 1}, or to {IGNORE_INDEX} to ignore them"
                )

    def read(self, path: Path) -> tv_tensors.Mask:
        """Read a mask to class ids, uint8 (H, W).

        Raises:
            RazorError: if the file cannot be read, has colour channels, or holds a number that is
                neither a class nor ignored.
        """
        return self.labels(self.decode(path), path)

    def labels(
        self, numbers: NDArray[Any], path: Path, absent: NDArray[np.bool_] | None = None
    ) -> tv_tensors.Mask:
        """The class ids of numbers from a mask, uint8 (H, W).

        Args:
            numbers: whole numbers, (H, W).
            path: the file, for messages.
            absent: bool (H, W), True where the file has no number; it is ignored, unless
                ``label_map`` says otherwise of that number.

        Raises:
            RazorError: as :meth:`read` does.
        """
        if numbers.ndim != 2:
            raise RazorError(
                f"mask {path} has {numbers.shape[2]} channels; "
                "save it as an indexed or grey PNG whose values are class ids"
            )
        inside = numbers.astype(np.uint16)  # a number beyond 16 bits changes, and is found below
        labels = self._labels[inside]
        is_stray = (labels == _STRAY) | (inside != numbers)
        if absent is not None:
            is_ignored = absent & ~np.isin(numbers, [*(self.label_map or {})])
            labels[is_ignored] = IGNORE_INDEX
            is_stray &= ~is_ignored
        stray = numbers[is_stray]
        if stray.size:
            ignored = ", ".join(map(str, np.flatnonzero(self._labels == IGNORE_INDEX)))
            way_out = "" if self.label_map is None else f", or set label_map: {{{stray[0]}: CLASS}}"
            raise RazorError(
                f"mask {path}: label {stray[0]} is outside {self.numbers[0]}..{self.numbers[-1]} "
                f"(and {ignored or 'none'} to ignore); "
                f"correct the mask or the list of classes{way_out}"
            )
        return tv_tensors.Mask(torch.from_numpy(labels.astype(np.uint8)))

    def decode(self, path: Path) -> NDArray[Any]:
        """The numbers of an indexed or grey PNG (H, W), or the channels (H, W, C) of another.

        Raises:
            RazorError: if the file cannot be read.
        """
        return read_numbers("mask", path)

    @cached_property
    def _labels(self) -> NDArray[np.int16]:
        """The label of every number."""
        labels = np.full(_NUMBERS, _STRAY, np.int16)
        labels[list(self.numbers)] = np.arange(len(self.numbers))
        labels[list(self.ignored)] = IGNORE_INDEX
        for number, label in (self.label_map or {}).items():
            labels[number] = label
        return labels


_STRAY = -1
_NUMBERS = 2**16
"""How many numbers a mask of 16 bits can hold."""
