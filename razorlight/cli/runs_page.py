"""``razorlight runs --html``: the runs of a folder on one page, with their curves."""

import os
from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from razorlight.callbacks.metrics_plot import Curves, draw_curves, read_metrics
from razorlight.cli.runs import Run, RunsTable
from razorlight.html import picture, table, write_html

_BESIDE = ("metrics.png", "memory.html", "config.yaml", "plan.yaml")
"""Files of a run to which its row leads."""


def write_runs(runs: RunsTable, path: Path) -> None:
    """Write runs as a page: their table, scores over peaks, and the curves of each metric.

    Args:
        runs: the runs.
        path: the new file. An existing one is replaced. Links to the files of the runs are relative
            to it.
    """
    write_html(path, "Runs side by side", _parts(runs, path.parent))


def _parts(runs: RunsTable, folder: Path) -> Iterator[str]:
    first, differs, *figures = runs.head()
    rows = [
        [escape(name), _text("<br>".join(map(escape, differing))), *shown, _links(run, folder)]
        for run, (name, differing, shown) in zip(runs.runs, runs.rows(), strict=True)
    ]
    yield table([first, _text(differs), *map(escape, figures), "files"], rows)
    yield f"<p>{escape(runs.others())}</p>"
    if png := _scores_over_peaks(runs):
        yield "<h2>What a score costs</h2>"
        yield picture(png, f"{runs.scores[0]} of each run over the peak of its training")
    curves = {run.name: _curves(run) for run in runs.runs}
    names = [*runs.scores, "val/loss", "train/loss_epoch"]
    shown = [name for name in dict.fromkeys(names) if any(name in each for each in curves.values())]
    if shown:
        yield "<h2>Curves</h2>"
    for name in shown:
        of_runs = {run: each[name] for run, each in curves.items() if name in each}
        yield picture(_drawn(name, of_runs), f"{name} of each run by step")


def _text(cell: str) -> str:
    return f'<div class="text">{cell}</div>'


def _links(run: Run, folder: Path) -> str:
    """Links to files of a run, relative to the folder of the page."""
    there = [name for name in _BESIDE if (run.folder / name).is_file()]
    addresses = [Path(os.path.relpath(run.folder / name, folder)).as_posix() for name in there]
    pairs = zip(addresses, there, strict=True)
    return " ".join(f'<a href="{quote(address)}">{name}</a>' for address, name in pairs)


def _curves(run: Run) -> Curves:
    metrics = run.folder / "metrics.csv"
    return read_metrics(metrics) if metrics.is_file() else {}


def _scores_over_peaks(runs: RunsTable) -> bytes:
    """The first score of each run over its peak, as a PNG; empty if fewer than two have both."""
    if not runs.scores:
        return b""
    score = runs.scores[0]
    points = [
        (run.peak, run.scores[score], run.name)
        for run in runs.runs
        if run.peak is not None and score in run.scores
    ]
    if len(points) < 2:
        return b""
    figure, axes = _axes()
    axes.set(xlabel="peak of training, MiB", ylabel=score)
    axes.grid(alpha=0.3)
    for peak, value, name in points:
        axes.plot(peak, value, "o", label=name)
    return _png(figure, axes)


def _drawn(metric: str, curves: dict[str, dict[int, float]]) -> bytes:
    figure, axes = _axes()
    draw_curves(axes, metric, curves)
    return _png(figure, axes)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure, axes: Axes) -> bytes:
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
