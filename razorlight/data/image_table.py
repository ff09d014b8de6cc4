"""Tables of images and their targets, as CSV files."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import get_args

from razorlight.data.files import files_in, require_below, require_folder
from razorlight.data.held_out import Split
from razorlight.errors import RazorError

IMAGE_COLUMNS = ("file", "image", "filename", "file_name", "image_path", "path")
"""Names of the column of images. The first of these that a table has is taken."""

SPLIT_COLUMN = "split"
"""Name of the column that says which split a row belongs to."""

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        file: the CSV.
        line: number of its line in the file, from 1.
        cells: the cells by the names of their columns.
    """

    file: Path
    line: int
    cells: Mapping[str, str]

    @property
    def place(self) -> str:
        """The file and the line, for messages."""
        return f"{self.file}, line {self.line}"

    def text(self, column: str) -> str:
        """A cell that must not be empty.

        Raises:
            RazorError: for an empty cell or a column that is not there.
        """
        if column not in self.cells:
            raise _missing_column(self.file, column, [*self.cells])
        if not self.cells[column]:
            raise RazorError(f"{self.place}: {column} is empty; fill it in, or remove the line")
        return self.cells[column]

    def number(self, column: str) -> float:
        """A cell that must be a number.

        Raises:
            RazorError: for any other cell.
        """
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            way_out = "write it as 3.5" + (", with a point" if "," in text else "")
            raise RazorError(f"{self.place}: {column} is {text!r}, which is no number; {way_out}")
        return value

    def flag(self, column: str) -> bool:
        """A cell that must be 0 or 1.

        Raises:
            RazorError: for any other cell.
        """
        text = self.text(column)
        if text.lower() not in _FLAGS:
            raise RazorError(f"{self.place}: {column} is {text!r}; it must be 0 or 1")
        return _FLAGS[text.lower()]


_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""How programs write 0 and 1, in lower case."""


class ImageTable:
    """The rows of a CSV, or of one CSV for each split; read when first asked for.

    Commas separate the cells; semicolons or tabs if the first line has no comma. The encoding is
    UTF-8.

    Args:
        root: the folder of the tables. Images lie in ``root/images`` or in ``root``.
        table: the CSV, as a path from ``root``. If None, ``train.csv``, ``val.csv`` and
            ``test.csv``, or else the only CSV in ``root``.
        image_column: the column of the images; the first of :data:`IMAGE_COLUMNS` if None.
    """

    def __init__(self, root: Path, table: str | None, image_column: str | None) -> None:
        self.root = root
        self._table = table
        self._image_column = image_column

    @cached_property
    def files(self) -> dict[Split, Path] | Path:
        """One CSV for each split, or one for all.

        Raises:
            RazorError: if nothing tells which file it is.
        """
        if self._table is not None:
            return self.root / self._table
        require_folder(self.root, "set root to the folder of a CSV and its images")
        of_splits = {split: self.root / f"{split}.csv" for split in SPLITS}
        if of_splits["train"].is_file():
            return {split: file for split, file in of_splits.items() if file.is_file()}
        found = files_in(self.root, (".csv",))
        if len(found) != 1:
            names = ", ".join(file.name for file in found[:3]) or "no CSV"
            raise RazorError(
                f"{self.root} has {names}, where one CSV, or train.csv and val.csv, should be; "
                "set table to a file"
            )
        return found[0]

    @cached_property
    def rows(self) -> dict[Split, list[Row]]:
        """The rows of each split; without any division all are of ``train``.

        Raises:
            RazorError: for a file that cannot be read or has no rows, an unknown split, or an image
                that has two rows.
        """
        if isinstance(self.files, Path):
            rows: dict[Split, list[Row]] = {split: [] for split in SPLITS}
            for row in _read(self.files):
                rows[_split_of(row)].append(row)
        else:
            rows = {
                split: _read(self.files[split]) if split in self.files else [] for split in SPLITS
            }
        self._require_once([row for split in SPLITS for row in rows[split]])
        return rows

    def require_rows(self, split: Split, way_out: str) -> list[Row]:
        """The rows of a split that must have some.

        Raises:
            RazorError: if it has none.
        """
        if not self.rows[split]:
            files = self.files if isinstance(self.files, Path) else self.root
            raise RazorError(f"{files}: no row is of {split}; {way_out}")
        return self.rows[split]

    def name_of(self, row: Row) -> str:
        """The image of a row, as it stands there."""
        if self._image_column is not None:
            return row.text(self._image_column)
        known = [name for name in IMAGE_COLUMNS if name in row.cells]
        if not known:
            raise RazorError(
                f"{row.file} has no column {' or '.join(IMAGE_COLUMNS[:2])}, only "
                f"{_listed([*row.cells])}; set image_column to that of the images"
            )
        return row.text(known[0])

    def images(self, rows: Sequence[Row]) -> list[Path]:
        """The image files of some rows.

        Raises:
            RazorError: if some are missing, or a path leads out of ``root``.
        """
        found, missing = [], []
        for row in rows:
            file = self._file_of(row)
            if file is None:
                missing.append(row)
            else:
                found.append(require_below(self.root, file))
        if missing:
            row = missing[0]
            way_out = "write paths relative to one of these folders"
            if "\\" in self.name_of(row):
                way_out += ", with / in place of \\"
            raise RazorError(
                f"{row.place}: there is no image {self.name_of(row)} in {self.root / 'images'} or "
                f"{self.root} ({len(missing)} of {len(rows)} are missing); {way_out}"
            )
        return found

    def _file_of(self, row: Row) -> Path | None:
        name = self.name_of(row)
        places = [self.root / "images" / name, self.root / name]
        return next((place for place in places if place.is_file()), None)

    def _require_once(self, rows: Sequence[Row]) -> None:
        seen: dict[str, Row] = {}
        for row in rows:
            name = self.name_of(row)
            first = seen.setdefault(os.path.normpath(self._file_of(row) or name), row)
            if first is not row:
                raise RazorError(
                    f"{row.place}: image {name} stands in {first.place} too; keep one of the lines"
                )


def _read(file: Path) -> list[Row]:
    """The rows of a CSV, without blank ones."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:  # Excel writes a mark in front
            header = lines.readline()
            lines.seek(0)
            delimiter = next((each for each in ",;\t" if each in header), ",")
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            read = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise RazorError(f"cannot read {file}: {error}; give a CSV in UTF-8") from error
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise RazorError(f"{file} has two columns {twice[0]!r}; rename one of them")
    rows = []
    for line, cells in read:
        if len(cells) != len(columns) and any(cells):
            raise RazorError(
                f"{file}, line {line}: {len(cells)} cells, where the first line has "
                f"{len(columns)}; put cells that contain a separator in quotes"
            )
        if any(cells):
            rows.append(Row(file, line, dict(zip(columns, cells, strict=True))))
    if not rows:
        raise RazorError(f"{file} has no rows below the names of its columns; add some")
    return rows


def _split_of(row: Row) -> Split:
    if SPLIT_COLUMN not in row.cells:
        return "train"
    if (name := row.text(SPLIT_COLUMN)) not in SPLITS:
        raise RazorError(f"{row.place}: {SPLIT_COLUMN} is {name!r}; it must be train, val or test")
    return name


def _missing_column(file: Path, column: str, known: Sequence[str]) -> RazorError:
    near = get_close_matches(column, known, n=1, cutoff=0.5)
    way_out = f"the nearest is {near[0]}" if near else "name one of these"
    return RazorError(f"{file} has no column {column!r}, only {_listed(known)}; {way_out}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


_SHOWN = 8
