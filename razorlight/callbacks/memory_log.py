"""What a run needed, as memory.csv, memory.png and a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich import get_console

from razorlight.files import replaced
from razorlight.memory.history import PhaseMemory, append_history, check_history, read_history
from razorlight.memory.page import write_page
from razorlight.memory.report import Steps, instants, memory_table, save_memory_plot


class MemoryLog:
    """The memory of each phase and epoch of a run, in its files and in a table.

    Args:
        csv: the file to append to, or to begin; None writes no files.

    Attributes:
        rows: one for each phase and epoch of this run. The file may hold those of earlier ones.

    Raises:
        RazorError: if there is another kind of file at ``csv``.
    """

    def __init__(self, csv: Path | None) -> None:
        if csv is not None:
            check_history(csv)
        self.csv = csv
        self.rows: list[PhaseMemory] = []

    def append(self, rows: Sequence[PhaseMemory]) -> None:
        """Add ``rows`` to the log and to its file."""
        self.rows.extend(rows)
        if self.csv is not None:
            append_history(self.csv, rows)

    def save(self, title: str, compared: Steps) -> Path | None:
        """Write all rows of the file, and the steps compared, into files beside it.

        ``memory.png`` shows them, and so does ``memory.html``, with what sets the peaks of the
        steps. ``step.json`` holds what was measured of the steps.

        Args:
            title: heading of the page.
            compared: the steps compared.

        Returns:
            The path of ``memory.png``; None if no files are written.
        """
        if self.csv is None:
            return None
        rows = read_history(self.csv)
        save_memory_plot(self._png, rows, compared)
        write_page(self.csv.with_suffix(".html"), title, rows, compared, self._png)
        measured = {mode: asdict(step) for mode, step in compared.items() if step is not None}
        if measured:
            with replaced(self.csv.with_name("step.json")) as new:
                new.write_text(json.dumps(measured, indent=1))
        return self._png

    def print_table(
        self, title: str, mode: str, compared: Steps, metrics: Mapping[str, float]
    ) -> None:
        """Print the table of :func:`razorlight.memory.report.memory_table`, and the files' paths.

        Args:
            title: heading of the table.
            mode: "dense" or "razor", whichever the run was.
            compared: the steps compared.
            metrics: final metrics, by name.
        """
        console = get_console()  # the progress bar's, which prints above itself
        console.print(memory_table(title, mode, compared, self.rows, metrics))
        for line in instants(compared):
            console.print(line, highlight=False, markup=False)
        if self.csv is not None:
            for path in (self.csv, self._png):
                console.print(str(path), soft_wrap=True, highlight=False, markup=False)

    @property
    def _png(self) -> Path:
        assert self.csv is not None
        return self.csv.with_suffix(".png")
