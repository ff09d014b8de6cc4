"""Mask files: how the numbers in them stand for classes."""

from collections.abc import Sequence
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
    """

    numbers: Sequence[int]
    ignored: Sequence[int] = (IGNORE_INDEX,)

    def read(self, path: Path) -> tv_tensors.Mask:
        """Read a mask to class ids, uint8 (H, W).

        Raises:
            RazorError: if the file cannot be read, has colour channels, or holds a number that is
                neither a class nor ignored.
        """
        numbers = self.decode(path)
        if numbers.ndim != 2:
            raise RazorError(
                f"mask {path} has {numbers.shape[2]} channels; "
                "save it as an indexed or grey PNG whose values are class ids"
            )
        inside = numbers.astype(np.uint16)  # a number beyond 16 bits changes, and is found below
        labels = self._labels[inside]
        stray = numbers[(labels == _STRAY) | (inside != numbers)]
        if stray.size:
            ignored = ", ".join(map(str, self.ignored))
            raise RazorError(
                f"mask {path}: label {stray[0]} is outside {self.numbers[0]}..{self.numbers[-1]} "
                f"(and {ignored} to ignore); correct the mask or the list of classes"
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
        labels = np.full(2**16, _STRAY, np.int16)
        labels[list(self.numbers)] = np.arange(len(self.numbers))
        labels[list(self.ignored)] = IGNORE_INDEX
        return labels


_STRAY = -1
