"""``razorlight runs``: the runs of a folder side by side, and what differs between them."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from razorlight.errors import RazorError

_TRAINED = ("seed_everything", "model", "data", "razor", "trainer")
"""The keys of a configuration that say what is trained."""

_WRITTEN = ("trainer.logger", "trainer.default_root_dir")
"""Keys below them that only say where a run writes."""

_MOST_SCORES = 3


@dataclass(frozen=True)
class Run:
    """A run, as its folder tells.

    Attributes:
        folder: its folder.
        name: that folder, below the one that was asked for.
        settings: its configuration, by whole key, without what is null.
        scores: the last value of each validation or test metric.
        peak: the highest peak of training, in MiB; None if none was measured.
    """

    folder: Path
    name: str
    settings: dict[str, str]
    scores: dict[str, float]
    peak: float | None


@dataclass(frozen=True)
class RunsTable:
    """Runs side by side.

    Attributes:
        runs: the runs, the newest last.
        usual: the most frequent value of each key whose values differ.
        scores: the names of the scores to show.
    """

    runs: list[Run]
    usual: dict[str, str]
    scores: list[str]

    def head(self) -> list[str]:
        """The columns."""
        return ["run", "what differs", *self.scores, "peak MiB"]

    def rows(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Of each run its name, its settings that are not the usual ones, and its figures."""
        for run in self.runs:
            scores = (run.scores.get(name) for name in self.scores)
            shown = ["" if score is None else f"{score:.4g}" for score in scores]
            peak = "" if run.peak is None else f"{run.peak:.1f}"
            yield run.name, [*_differing(run, self.usual)], [*shown, peak]

    def others(self) -> str:
        """The usual settings, in a sentence; empty if all runs are alike."""
        alike = ", ".join(f"{key}={value}" for key, value in self.usual.items() if value)
        return f"the others: {alike}" if alike else ""


def read_runs(folder: Path) -> RunsTable:
    """Find the runs below a folder.

    Args:
        folder: where runs are, at any depth.

    Raises:
        RazorError: if there are none.
    """
    runs = [*_runs_below(folder)]
    if not runs:
        raise RazorError(
            f"runs: no run in {folder}: none of its folders has a config.yaml of `razorlight fit`"
        )
    return RunsTable(runs, _usual(runs), _score_names(runs))


def show(runs: RunsTable) -> None:
    """Print the runs as a table of 80 columns or the terminal's."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold")
    table.add_column("what differs", overflow="fold")
    for name in runs.head()[2:]:
        table.add_column(name, justify="right")
    for name, differing, figures in runs.rows():
        table.add_row(name, "\n".join(differing), *figures)
    console = Console(highlight=False)
    console.print(table)
    if others := runs.others():
        console.print(others, markup=False)


def _runs_below(folder: Path) -> Iterator[Run]:
    configs = sorted(folder.rglob("config.yaml"), key=lambda path: path.stat().st_mtime)
    for config in configs:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        if isinstance(content, Mapping) and {"model", "data", "trainer"} <= content.keys():
            trained = {key: content[key] for key in _TRAINED if key in content}
            if trained.get("razor") is True:
                trained["razor"] = {"class_path": "BackRazor", "init_args": {"recipe": "balanced"}}
            settings = {k: v for k, v in _flat("", trained) if not k.startswith(_WRITTEN)}
            run = config.parent
            yield Run(run, str(run.relative_to(folder)), settings, _scores(run), _peak(run))


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """The values of a configuration by whole key; a class stands at its key."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            kind = str(value["class_path"]).rpartition(".")[2]
            yield key, "true" if key == "razor" else kind  # as it is written without arguments
            value = value.get("init_args") or {}
        for name, each in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), each)
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for each in value:
            name = str(each.get("class_path", "")).rpartition(".")[2]
            yield from _flat(f"{key}.{name}" if name else key, each)
    elif isinstance(value, float):
        yield key, f"{value:.6g}"
    elif value is not None:
        yield key, str(value).lower() if isinstance(value, bool) else str(value)


def _usual(runs: list[Run]) -> dict[str, str]:
    """The most frequent value of each key whose values differ, the newest of equals."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    usual = {}
    for key in keys:
        values = Counter(run.settings.get(key, "") for run in reversed(runs))
        if len(values) > 1:
            usual[key] = values.most_common(1)[0][0]
    return usual


def _differing(run: Run, usual: Mapping[str, str]) -> Iterator[str]:
    for key, value in usual.items():
        own = run.settings.get(key, "")
        if own != value:
            yield f"{key}={own or 'not set'}"


def _score_names(runs: list[Run]) -> list[str]:
    """The metrics that the most runs have, without the losses, if there are others."""
    counted = Counter(name for run in runs for name in run.scores)
    names = [name for name, _ in counted.most_common()]
    others = [name for name in names if not name.endswith("loss")]
    return (others or names)[:_MOST_SCORES]


def _scores(run: Path) -> dict[str, float]:
    rows = read_rows(run / "metrics.csv")
    found = {}
    for row in rows:
        found.update({k: float(v) for k, v in row.items() if v and k.startswith(("val/", "test/"))})
    return found


def _peak(run: Path) -> float | None:
    rows = [row for row in read_rows(run / "memory.csv") if row.get("phase") == "train"]
    return max((float(row["peak_mib"]) for row in rows if row.get("peak_mib")), default=None)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a run's CSV; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]
