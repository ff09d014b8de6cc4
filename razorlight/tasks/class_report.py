"""Scores by class, from a confusion matrix: as a table, as CSV, and as a picture."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

Score = Literal["accuracy", "IoU"]
"""Of a class: the share of its samples that were recognised, or intersection over union."""

COUNTED = {"accuracy": "images", "IoU": "pixels"}
SHOWN_WHOLE = 40
"""The most classes that a table shows. Of more it shows the worst and the best."""
SHOWN_EACH = 10
NAMED, FIGURED = 60, 20
"""The most classes for which the picture has names at its axes, and figures in its cells."""


@dataclass(frozen=True)
class ClassReport:
    """A confusion matrix, and the score that it gives each class.

    Attributes:
        confusion: counts, int64 (classes, classes), truth by row, prediction by column.
        names: one per class.
        score: figure that is given of each class.
    """

    confusion: Tensor
    names: Sequence[str]
    score: Score

    @property
    def scores(self) -> list[float | None]:
        """One score per class, in 0..1.

        The accuracy is None for a class that does not occur in the truth, the IoU for one that
        occurs neither in the truth nor in the predictions.
        """
        hits, of = self.confusion.diag(), self.confusion.sum(1)
        if self.score == "IoU":
            of = of + self.confusion.sum(0) - hits
        return _shares(hits, of)

    @property
    def precisions(self) -> list[float | None]:
        """Of each class, the share of its predictions that are true; None where there are none."""
        return _shares(self.confusion.diag(), self.confusion.sum(0))

    @property
    def f1(self) -> list[float | None]:
        """Of each class, the harmonic mean of precision and recall; None if it never occurs."""
        occurrences = self.confusion.sum(0) + self.confusion.sum(1)
        return _shares(2 * self.confusion.diag(), occurrences)

    def table(self) -> Table:
        """At most 80 columns: name, score, precision, F1, share of the truth in percent, by class.

        Of more than 40 classes the ten worst and the ten best.
        """
        scores, counts = self.scores, self.confusion.sum(1)
        shares = (100 * counts / counts.sum()).tolist()
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

    def save(self, folder: Path, stage: str) -> tuple[Path, Path]:
        """Write ``<stage>_classes.csv`` and ``<stage>_confusion.png``.

        Returns:
            The two paths. The table has a line for each class: name, score, precision and F1 (empty
            where there is none), true and predicted count.
        """
        folder.mkdir(parents=True, exist_ok=True)
        table, picture = folder / f"{stage}_classes.csv", folder / f"{stage}_confusion.png"
        counts = self.confusion.sum(1).tolist(), self.confusion.sum(0).tolist()
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["class", self.score, "precision", "F1", "true", "predicted"])
            rates = self.scores, self.precisions, self.f1
            writer.writerows(zip(self.names, *rates, *counts, strict=True))
        self.plot().savefig(picture, format="png", bbox_inches="tight")
        return table, picture

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


def _shares(parts: Tensor, of: Tensor) -> list[float | None]:
    pairs = zip(parts.tolist(), of.tolist(), strict=True)
    return [part / total if total else None for part, total in pairs]


def _write_figures(axes: Axes, percent: Tensor) -> None:
    for row, values in enumerate(percent.tolist()):
        for column, value in enumerate(values):
            color = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, size=8)
