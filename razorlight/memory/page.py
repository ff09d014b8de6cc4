"""Measured memory as one HTML page, which needs nothing beside it."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from razorlight.html import picture, table, write_html
from razorlight.memory.history import PhaseMemory
from razorlight.memory.look import KINDS, Peak
from razorlight.memory.meter import MIB
from razorlight.memory.report import Steps, instants, run_sizes

_COLORS = dict(
    zip(
        KINDS,
        ("#4e79a7", "#9aa5b1", "#76b7b2", "#bab0ac", "#b07aa1", "#59a14f", "#e15759", "#f28e2b"),
        strict=True,
    )
)
_MOST_LAYERS = 20


def write_page(
    path: Path, title: str, rows: Sequence[PhaseMemory], steps: Steps, plot: Path
) -> None:
    """Write what was measured in a run.

    Args:
        path: the new file. An existing one is replaced.
        title: the heading.
        rows: the run's phases and epochs.
        steps: the measured steps.
        plot: a PNG of the epochs, which goes into the page.
    """
    peaks = {
        mode: step.explained
        for mode, step in sorted(steps.items())  # dense, razor
        if step is not None and step.explained is not None
    }
    write_html(path, title, [*_step(peaks, steps), *_layers(peaks), *_run(rows, plot)])


def _step(peaks: Mapping[str, Peak], steps: Steps) -> Iterator[str]:
    if not peaks:
        return
    largest = max(peak.nbytes for peak in peaks.values())
    yield "<h2>What is alive at the peak of one training step</h2>"
    for mode, peak in peaks.items():
        yield f"<div>{mode}: {peak.nbytes / MIB:.2f} MiB</div>"
        parts = "".join(
            f'<span style="background:{_COLORS[kind]};width:{100 * size / largest:.3f}%" '
            f'title="{escape(kind)}: {size / MIB:.2f} MiB"></span>'
            for kind, size in peak.kinds.items()
        )
        yield f'<div class="bar">{parts}</div>'
    met = [kind for kind in KINDS if any(peak.kinds[kind] for peak in peaks.values())]
    yield table(
        ["MiB", *peaks],
        [
            [_key(kind), *(f"{peak.kinds[kind] / MIB:.2f}" for peak in peaks.values())]
            for kind in met
        ],
    )
    yield from (f"<p>{escape(line)}</p>" for line in instants(steps))


def _key(kind: str) -> str:
    return f'<span class="key" style="background:{_COLORS[kind]}"></span>{escape(kind)}'


def _layers(peaks: Mapping[str, Peak]) -> Iterator[str]:
    if not peaks:
        return
    totals = {name: 0 for peak in peaks.values() for name in peak.layers}
    for peak in peaks.values():
        for name, size in peak.layers.items():
            totals[name] += size
    names = sorted(totals, key=lambda name: -totals[name])
    shown = [
        [escape(name), *(f"{peak.layers.get(name, 0) / MIB:.2f}" for peak in peaks.values())]
        for name in names[:_MOST_LAYERS]
    ]
    if rest := names[_MOST_LAYERS:]:
        sizes = [sum(peak.layers.get(name, 0) for name in rest) for peak in peaks.values()]
        shown.append([f"{len(rest)} more", *(f"{size / MIB:.2f}" for size in sizes)])
    yield "<h2>What each layer stores between forward and backward</h2>"
    yield table(["MiB", *peaks], shown)


def _run(rows: Sequence[PhaseMemory], plot: Path) -> Iterator[str]:
    yield "<h2>The run</h2>"
    sizes = [[escape(label), f"{size:.2f}"] for label, size in run_sizes(rows).items()]
    yield table(["highest of all epochs", "MiB"], sizes)
    yield picture(plot.read_bytes(), "Peaks by phase and epoch")
