"""Measured memory as one HTML page, which needs nothing beside it."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from razorlight.files import replaced
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

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 56rem; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; text-align: right; }
th:first-child, td:first-child { overflow-wrap: anywhere; text-align: left; }
.bar { display: flex; height: 1.6rem; margin: .2rem 0 .8rem; }
.key { border-radius: .2rem; display: inline-block; height: .8rem; width: .8rem; }
.key { margin-right: .5rem; }
.wide { overflow-x: auto; }
img { background: white; border-radius: .4rem; height: auto; max-width: 100%; }
"""


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
    parts = [f"<h1>{escape(title)}</h1>", *_step(peaks, steps), *_layers(peaks), *_run(rows, plot)]
    head = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    with replaced(path) as new:
        new.write_text("\n".join([head, *parts, "</html>"]), encoding="utf-8")


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
    yield _table(
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
    yield _table(["MiB", *peaks], shown)


def _run(rows: Sequence[PhaseMemory], plot: Path) -> Iterator[str]:
    yield "<h2>The run</h2>"
    sizes = [[escape(label), f"{size:.2f}"] for label, size in run_sizes(rows).items()]
    yield _table(["highest of all epochs", "MiB"], sizes)
    picture = b64encode(plot.read_bytes()).decode()
    yield f'<p><img alt="Peaks by phase and epoch" src="data:image/png;base64,{picture}"></p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{cell}</th>" for cell in head)
    others = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{first}</tr>{others}</table></div>'
