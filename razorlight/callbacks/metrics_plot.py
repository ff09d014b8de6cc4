"""The losses and scores of a run over its steps, as ``metrics.png``."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from razorlight.files import replaced

Curves = dict[str, dict[int, float]]
"""By the name of a metric, its value at each step."""


def read_metrics(path: Path) -> Curves:
    """The metrics in a CSV file of Lightning's logger.

    Where a run was resumed, a step may stand there twice. The last value counts.

    Args:
        path: the file.
    """
    curves: Curves = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(float(row.get("step") or 0))
            for name, text in row.items():
                if name not in ("epoch", "step") and text:
                    curves[name][step] = float(text)
    return dict(curves)


def save_metrics_plot(curves: Curves, path: Path) -> None:
    """Draw losses beside scores into a PNG; draw nothing if there are neither.

    Args:
        curves: of them those of training and validation are drawn.
        path: of the PNG.
    """
    seen = {n: c for n, c in curves.items() if n.startswith(("train/", "train_", "val/", "val_"))}
    losses = {name: curve for name, curve in seen.items() if "loss" in name}
    scores = {name: curve for name, curve in seen.items() if name not in losses}
    panels = [(t, part) for t, part in (("Losses", losses), ("Scores", scores)) if part]
    if not panels:
        return
    figure = Figure(figsize=(5 * len(panels) + 1, 4), dpi=120, layout="constrained")
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, part) in zip(places, panels, strict=True):
        draw_curves(axes, title, part)
        axes.legend(fontsize="small")
    with replaced(path) as new:
        figure.savefig(new, format="png")


def draw_curves(axes: Axes, title: str, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Draw curves over steps. Values that are not finite are left out.

    Args:
        axes: where to draw; the legend is left to the caller.
        title: the heading.
        curves: by name, the value at each step.
    """
    for name, curve in curves.items():
        steps = [step for step in sorted(curve) if math.isfinite(curve[step])]
        marker = "o-" if len(steps) < _FEW else "-"
        axes.plot(steps, [curve[step] for step in steps], marker, label=name, markersize=3)
    axes.set(title=title, xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


_FEW = 50
"""So many points are drawn one by one."""
