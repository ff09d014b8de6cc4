"""Scores by class: as a table, as CSV, and, of a confusion matrix, as a picture."""

import csv
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from razorlight.tasks.reporting import Report

Score = Literal["accuracy", "IoU", "AP"]
"""Of a class: the share of its samples that were recognised, intersection over union, or average
precision."""

COUNTED = {"accuracy": "images", "IoU": "pixels", "AP": "images"}
SHOWN_WHOLE = 40
"""The most classes that a table shows. Of more it shows the worst and the best."""
SHOWN_EACH = 10
NAMED, FIGURED = 60, 20
"""The most classes for which the picture has names at its axes, and figures in its cells."""


@dataclass(frozen=True)
class ScoresByClass(Report):
    """A score of each class, and what was counted of it.

    Attributes:
        names: one per class.
        score: figure that is given of each class.
    """

    names: Sequence[str]
    score: Score

    @property
    @abstractmethod
    def scores(self) -> list[float | None]:
        """One score per class, in 0..1; None for a class that has none."""

    @property
    @abstractmethod
    def hits(self) -> Tensor:
        """How often each class was recognised, int64 (classes,)."""

    @property
    @abstractmethod
    def true(self) -> Tensor:
        """How often each class occurs in the truth, int64 (classes,)."""

    @property
    @abstractmethod
    def predicted(self) -> Tensor:
        """How often each class was predicted, int64 (classes,)."""

    @property
    @abstractmethod
    def total(self) -> int:
        """How many images or pixels there are."""

    @property
    def precisions(self) -> list[float | None]:
        """Of each class, the share of its predictions that are true; None where there are none."""
        return _shares(self.hits, self.predicted)

    @property
    def f1(self) -> list[float | None]:
        """Of each class, the harmonic mean of precision and recall; None if it never occurs."""
        return _shares(2 * self.hits, self.true + self.predicted)

    def table(self) -> Table:
        """At most 80 columns: name, score, precision, F1, share of the truth in percent, by class.

        Of more than 40 classes the ten worst and the ten best.
        """
        scores, shares = self.scores, (100 * self.true / self.total).tolist()
        table = Table(title=f"{self.score} by class")
        table.add_column("class", max_width=30, no_wrap=True, overflow="ellipsis")
        rates = (scores, self.precisions, self.f1)
        for heading in (self.score, "precision", "F1"):
            table.add_column(heading, justify="right")
        table.add_column(f"% of {COUNTED[self.score]}", justify="right")

        def add(label: int) -> None:
            of_class = [each[label] for each in rates]
            shown = ["-" if rate is None else f"{rate:.3f}" for rate in of_class]
            table.add_row(self.names[label], *shown, f"{shares[label]:.2f}")

        if len(scores) <= SHOWN_WHOLE:
            for label in range(len(scores)):
                add(label)
            return table
        known = [(score, label) for label, score in enumerate(scores) if score is not None]
        ranked = [label for _, label in sorted(known)]
        table.title = f"{self.score} by class: the worst and the best of {len(scores)}"
        for part in (ranked[:SHOWN_EACH], ranked[SHOWN_EACH:][-SHOWN_EACH:]):
            for label in part:
                add(label)
            table.add_section()
        return table

    def save(self, folder: Path, stage: str) -> Sequence[Path]:
        """Write ``<stage>_classes.csv``, and return its path.

        It has a line for each class: name, score, precision and F1 (empty where there is none),
        true and predicted count.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stage}_classes.csv"
        rates = self.scores, self.precisions, self.f1
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["class", self.score, "precision", "F1", "true", "predicted"])
            counts = self.true.tolist(), self.predicted.tolist()
            writer.writerows(zip(self.names, *rates, *counts, strict=True))
        return [path]


@dataclass(frozen=True)
class ClassReport(ScoresByClass):
    """A confusion matrix, and the score that it gives each class.

    Attributes:
        names: one per class.
        score: figure that is given of each class.
        confusion: counts, int64 (classes, classes), truth by row, prediction by column.
    """

    confusion: Tensor

    @property
    def scores(self) -> list[float | None]:
        """One score per class, in 0..1.

        The accuracy is None for a class that does not occur in the truth, the IoU for one that
        occurs neither in the truth nor in the predictions.
        """
        of = self.true + self.predicted - self.hits if self.score == "IoU" else self.true
        return _shares(self.hits, of)

    @property
    def hits(self) -> Tensor:
        """How often each class was recognised, int64 (classes,)."""
        return self.confusion.diag()

    @property
    def true(self) -> Tensor:
        """How often each class occurs in the truth, int64 (classes,)."""
        return self.confusion.sum(1)

    @property
    def predicted(self) -> Tensor:
        """How often each class was predicted, int64 (classes,)."""
        return self.confusion.sum(0)

    @property
    def total(self) -> int:
        """How many images or pixels there are."""
        return int(self.confusion.sum())

    def save(self, folder: Path, stage: str) -> Sequence[Path]:
        """Write ``<stage>_classes.csv`` and ``<stage>_confusion.png``, and return their paths."""
        picture = folder / f"{stage}_confusion.png"
        tables = super().save(folder, stage)
        self.plot().savefig(picture, format="png", bbox_inches="tight")
        return [*tables, picture]

    def plot(self) -> Figure:
        """The confusion matrix, each row in percent of its true class."""
        classes = len(self.names)
        side = min(12.0, 4 + 0.25 * classes)
        figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
        axes = figure.subplots()
        percent = 100 * self.confusion / self.confusion.sum(1, keepdim=True).clamp(min=1)
        picture = axes.imshow(percent, vmin=0, vmax=100, cmap="Blues", interpolation="nearest")
        figure.colorbar(picture, ax=axes, label=f"% of the class's {COUNTED[self.score]}")
        axes.set(xlabel="predicted", ylabel="true")
        if classes <= NAMED:
            axes.set_xticks(range(classes), self.names, rotation=90)
            axes.set_yticks(range(classes), self.names)
        if classes <= FIGURED:
            _write_figures(axes, percent)
        return figure


@dataclass(frozen=True)
class MultiLabelReport(ScoresByClass):
    """The average precision of each class, where an image may have several.

    Attributes:
        names: one per class.
        score: ``AP``.
        ap: average precision of each class, float (classes,); NaN for a class that never occurs.
        counts: true positives, false positives, true negatives, false negatives and occurrences of
            each class, int64 (classes, 5).
    """

    ap: Tensor
    counts: Tensor

    @property
    def scores(self) -> list[float | None]:
        """The average precision of each class; None for a class that does not occur."""
        pairs = zip(self.ap.tolist(), self.true.tolist(), strict=True)
        return [ap if count else None for ap, count in pairs]

    @property
    def hits(self) -> Tensor:
        """How many images each class was recognised in, int64 (classes,)."""
        return self.counts[:, 0]

    @property
    def true(self) -> Tensor:
        """How many images have each class, int64 (classes,)."""
        return self.counts[:, 4]

    @property
    def predicted(self) -> Tensor:
        """How many images each class was predicted for, int64 (classes,)."""
        return self.counts[:, :2].sum(1)

    @property
    def total(self) -> int:
        """How many images there are."""
        return int(self.counts[0, :4].sum())


def _shares(parts: Tensor, of: Tensor) -> list[float | None]:
    pairs = zip(parts.tolist(), of.tolist(), strict=True)
    return [part / total if total else None for part, total in pairs]


def _write_figures(axes: Axes, percent: Tensor) -> None:
    for row, values in enumerate(percent.tolist()):
        for column, value in enumerate(values):
            color = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, size=8)
