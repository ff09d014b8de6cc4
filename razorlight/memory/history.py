"""The memory of a run's epochs, as rows of a CSV file that only grows."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from razorlight.errors import RazorError
from razorlight.files import drop_torn_line


@dataclass(frozen=True)
class PhaseMemory:
    """Measured memory of one phase in one epoch. Sizes are in MiB, or None if not measured.

    Attributes:
        epoch: the epoch, from 0.
        phase: "train", "val" or "test".
        peak_mib: peak allocated.
        stored_mib: the most that was stored between a forward and its backward.
        parameters_mib: parameters of the model.
        gradients_mib: their gradients, after a training step.
        optimizer_mib: state of the optimizers at the end of the epoch.
    """

    epoch: int
    phase: str
    peak_mib: float
    stored_mib: float | None = None
    parameters_mib: float | None = None
    gradients_mib: float | None = None
    optimizer_mib: float | None = None

    def sizes(self) -> dict[str, float]:
        """The sizes that were measured, by name."""
        return {k: v for k, v in asdict(self).items() if k.endswith("_mib") and v is not None}


_COLUMNS = [field.name for field in fields(PhaseMemory)]


def check_history(path: Path) -> None:
    """Refuse to append to a file that is not a history of memory.

    Raises:
        RazorError: if ``path`` exists with other columns.
    """
    if not path.exists():
        return
    with path.open(newline="") as file:
        columns = next(csv.reader(file), _COLUMNS)
    if columns != _COLUMNS:
        raise RazorError(
            f"{path}: its columns are {','.join(columns)}, not {','.join(_COLUMNS)}; "
            "move it away or choose another folder"
        )


def append_history(path: Path, rows: Sequence[PhaseMemory]) -> None:
    """Append ``rows`` to the CSV file at ``path``, begun with a header if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        drop_torn_line(path)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        for row in rows:
            sizes = {name: f"{size:.3f}" for name, size in row.sizes().items()}
            writer.writerow({"epoch": row.epoch, "phase": row.phase, **sizes})


def read_history(path: Path) -> list[PhaseMemory]:
    """The rows of the CSV file at ``path``, sizes rounded to .001 MiB."""
    with path.open(newline="") as file:
        return [_parse(row) for row in csv.DictReader(file)]


def _parse(row: dict[str, str]) -> PhaseMemory:
    sizes = {name: float(row[name]) for name in _COLUMNS[2:] if row[name]}
    return PhaseMemory(int(row["epoch"]), row["phase"], **sizes)
