"""What razorlight asks of data modules, its own and those of others.

A data module of Lightning's says nothing of its classes or colours. Code that can use them asks
``isinstance(data, Labelled)``, and does without where the answer is no.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

Palette = Sequence[tuple[int, int, int]]
"""One RGB colour per class, 0..255."""


THRESHOLD = 0.5
"""The probability from which on a class counts as predicted, where images have several."""


@runtime_checkable
class Labelled(Protocol):
    """A data module whose targets are classes."""

    @property
    def class_names(self) -> Sequence[str]:
        """One name per class."""


@runtime_checkable
class MultiLabelled(Protocol):
    """A data module whose images have any number of classes each."""

    def class_shares(self) -> Sequence[float]:
        """The share of the training images that have each class, in 0..1."""


@runtime_checkable
class Measured(Protocol):
    """A data module whose targets are numbers, one or several for each image."""

    @property
    def target_names(self) -> Sequence[str]:
        """One name per number."""

    def target_moments(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation of each target over the training images."""


def output_names(data: object) -> Sequence[str]:
    """The names of the classes or numbers that a data module has; empty if it has none."""
    if isinstance(data, Measured):
        return data.target_names
    return data.class_names if isinstance(data, Labelled) else ()


@runtime_checkable
class Counted(Protocol):
    """A data module that knows how often each class occurs."""

    def label_counts(self) -> Mapping[int, int]:
        """The training images of each class, or the pixels of the training masks; 0 for others."""


@runtime_checkable
class Coloured(Protocol):
    """A data module whose targets are maps of classes, which have colours."""

    @property
    def palette(self) -> Palette:
        """One RGB colour per class, 0..255."""


@runtime_checkable
class Normalised(Protocol):
    """A data module that normalises its images."""

    @property
    def mean(self) -> Sequence[float]:
        """What was subtracted from each channel, of values in 0..1."""

    @property
    def std(self) -> Sequence[float]:
        """What each channel was divided by after that."""
