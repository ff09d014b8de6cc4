"""Measured memory as a table and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from razorlight.memory.history import PhaseMemory
from razorlight.memory.look import KINDS
from razorlight.memory.meter import MIB
from razorlight.memory.step import StepMemory

Steps = Mapping[str, StepMemory | None]
"""One step measured as "dense" and as "razor"; None says that it ran out of memory."""

_COLORS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}


def memory_table(
    title: str, run: str, steps: Steps, rows: Sequence[PhaseMemory], metrics: Mapping[str, float]
) -> Table:
    """A table of at most 80 columns: one step dense and razor, then what the run needed.

    Args:
        title: its heading.
        run: what the run was, "dense" or "razor"; its figures stand in that column.
        steps: the measured steps.
        rows: the run's phases and epochs; the highest figure of each phase is shown.
        metrics: final metrics by name.
    """
    modes = [mode for mode in ("dense", "razor") if mode in steps or mode == run]
    table = Table(title=title)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=31)
    for mode in modes:
        table.add_column(mode, justify="right", no_wrap=True)
    if ratios := _ratios(steps):
        table.add_column("dense/razor", justify="right", no_wrap=True)
    if steps:
        for size, label in (("stored", "stored after forward"), ("peak", "peak allocated")):
            cells = [_cell(steps[mode], size) if mode in steps else "" for mode in modes]
            table.add_row(f"one step: {label}", *cells, *([ratios[size]] if ratios else []))
    table.add_section()
    for kind in KINDS:
        sizes = [_at_the_peak(steps.get(mode), kind) for mode in modes]
        if any(sizes):
            table.add_row(f"at its peak: {kind}", *(f"{size / MIB:.2f}" for size in sizes))
    table.add_section()
    for label, value in run_sizes(rows).items():
        table.add_row(label, *(f"{value:.2f}" if mode == run else "" for mode in modes))
    table.add_section()
    for name, value in metrics.items():
        table.add_row(name, *(f"{value:.4g}" if mode == run else "" for mode in modes))
    return table


def instants(steps: Steps) -> list[str]:
    """Lines that say what runs at the peaks of the measured steps."""
    explained = {mode: step.explained for mode, step in sorted(steps.items()) if step is not None}
    return [f"{mode}: its peak is {p.instant}" for mode, p in explained.items() if p is not None]


def _at_the_peak(step: StepMemory | None, kind: str) -> int:
    return step.explained.kinds[kind] if step is not None and step.explained is not None else 0


def _cell(step: StepMemory | None, size: str) -> str:
    return "out of memory" if step is None else f"{getattr(step, size) / MIB:.2f}"


def _ratios(steps: Steps) -> dict[str, str]:
    dense, razor = steps.get("dense"), steps.get("razor")
    if dense is None or razor is None:
        return {}
    return {
        "stored": f"{dense.stored / razor.stored:.2f}x",
        "peak": f"{dense.peak / razor.peak:.2f}x",
    }


def run_sizes(rows: Sequence[PhaseMemory]) -> dict[str, float]:
    """The highest of each size of the run, by label."""
    sizes: dict[str, float] = {}
    for row in rows:
        for name, size in row.sizes().items():
            label = f"run: {row.phase} {_LABELS[name]}"
            sizes[label] = max(sizes.get(label, 0.0), size)
    return sizes


_LABELS = {
    "peak_mib": "peak allocated",
    "stored_mib": "stored after forward",
    "parameters_mib": "parameters",
    "gradients_mib": "gradients",
    "optimizer_mib": "optimizer state",
}


def save_memory_plot(path: Path, rows: Sequence[PhaseMemory], steps: Steps) -> None:
    """Draw the peaks by phase over the epochs, and the measured steps, into a PNG at ``path``.

    Of several rows for one phase and epoch (a run resumed or repeated) the last one counts.
    """
    measured = {mode: step for mode, step in steps.items() if step is not None}
    figure = Figure(figsize=(10 if measured else 7, 4), dpi=120, layout="constrained")
    if measured:
        peaks, bars = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_steps(bars, measured)
    else:
        peaks = figure.subplots()
    _draw_peaks(peaks, rows)
    figure.savefig(path, format="png")


def _draw_peaks(axes: Axes, rows: Sequence[PhaseMemory]) -> None:
    for phase, color in _COLORS.items():
        peaks = {row.epoch: row.peak_mib for row in rows if row.phase == phase}
        if peaks:
            epochs = sorted(peaks)
            axes.plot(epochs, [peaks[e] for e in epochs], "o-", color=color, label=phase)
    axes.set(title="Peak allocated by phase, measured", xlabel="epoch", ylabel="MiB")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_steps(axes: Axes, steps: Mapping[str, StepMemory]) -> None:
    modes = sorted(steps)  # dense, razor
    for size, color, shift in (("stored", "tab:purple", -0.2), ("peak", "tab:gray", 0.2)):
        heights = [getattr(steps[mode], size) / MIB for mode in modes]
        places = [place + shift for place in range(len(modes))]
        bars = axes.bar(places, heights, width=0.4, color=color, label=size)
        axes.bar_label(bars, fmt="{:.1f}")
    axes.set_xticks(range(len(modes)), modes)
    axes.set(title="One training step, measured", ylabel="MiB")
    axes.margins(y=0.15)
    axes.legend()
