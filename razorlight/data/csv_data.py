"""Images whose targets stand in a CSV: one class, several classes, or numbers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from razorlight.data.augmentation import mixing_collate
from razorlight.data.base import RazorDataModule
from razorlight.data.classification import ClassificationData
from razorlight.data.held_out import HeldOut, Split
from razorlight.data.image_table import ImageTable, Row
from razorlight.data.imagery import FolderImagery
from razorlight.data.samples import LabelledImages, TargetedImages
from razorlight.data.whole_image import WholeImageData
from razorlight.errors import RazorError


class CSVData(RazorDataModule, ABC):
    """Images whose targets are columns of a CSV.

    On disk::

        root/<any name>.csv            a column file or image, and those of the targets
        root/{train,val,test}.csv      or one CSV for each split
        root/images/*.jpg              any format that PIL reads; or root/*.jpg

    The paths of the images are relative to ``root/images``, or to ``root``. A column ``split``
    says ``train``, ``val`` or ``test``. If no row is of ``val``, a share of ``train`` is held out
    in its place. Cells are separated by commas, or by semicolons or tabs if the first line has no
    comma; the encoding is UTF-8.

    Args:
        root: the folder that holds the CSV and the images.
        table: the CSV, as a path from ``root``. If None, ``train.csv``, ``val.csv`` and
            ``test.csv``, or else the only CSV in ``root``.
        image_column: the column of the images. If None, the first there is of ``file``, ``image``,
            ``filename``, ``file_name``, ``image_path`` and ``path``.
        val_fraction: share of the images that is held out where no row is of ``val``, in (0, 1);
            None to refuse such a CSV.
        split_seed: seed of that division.
        bands: numbers of the bands to read, counted from 1 as GDAL does, such as ``[4, 3, 2]``;
            None for all. Given, every image is read by rasterio, pictures too.
        val_fold: which of the shares is held out, from 0; those of all folds are the whole.
        **kwargs: arguments of the other base class of a subclass, which says what the targets are.

    Raises:
        RazorError: for a fraction out of its range.
    """

    root: Path

    def __init__(
        self,
        root: str = "data",
        table: str | None = None,
        image_column: str | None = None,
        val_fraction: float | None = 0.2,
        split_seed: int = 0,
        bands: list[int] | None = None,
        val_fold: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)  # type: ignore[arg-type]  # of the other base class
        self.table = ImageTable(self.root, table, image_column)
        self.imagery = FolderImagery(self.imagery.given, self, self.root, bands)
        self.held_out = HeldOut(val_fraction, split_seed, val_fold)

    @abstractmethod
    def targets_of(self, rows: Sequence[Row]) -> Sequence[int] | Tensor:
        """The targets of some rows, as :class:`TargetedImages` takes them.

        Raises:
            RazorError: for a cell that is none.
        """

    def group(self, row: Row) -> Hashable:
        """What the share that is held out is taken of each alike, such as a class."""
        return None

    @property
    def splits(self) -> tuple[Split, ...]:
        """``test`` only where rows are of it."""
        return ("train", "val", "test") if self.table.rows["test"] else ("train", "val")

    @property
    def training_rows(self) -> list[Row]:
        """The rows of ``train``, with those that are held out.

        Raises:
            RazorError: if there are none.
        """
        return self.table.require_rows("train", "call some of the rows train")

    def rows(self, split: Split) -> list[Row]:
        """The rows of a split.

        Raises:
            RazorError: if it has none.
        """
        rows = self.training_rows
        if of_val := self.table.rows["val"]:
            self.held_out.require_no_fold(f"val of {of_val[0].file}")
        if split == "test" or self.table.rows["val"] or self.held_out.fraction is None:
            return self.table.require_rows(split, "call some of the rows so, or set val_fraction")
        files = [self.root / self.table.name_of(row) for row in rows]
        groups = [self.group(row) for row in rows]
        chosen = self.held_out.part(files, self.root, split, groups, "no row is of val")
        return [rows[index] for index in chosen]

    def samples(self, split: Split) -> TargetedImages:
        """The images of a split and their targets, in the order of the rows."""
        rows = self.rows(split)
        targets = self.targets_of(rows)
        return TargetedImages(self.table.images(rows), targets, self.images)


class ClassificationCSV(CSVData, ClassificationData):
    """Images with one class each, which a column of a CSV names.

    The classes are those of the training rows, sorted, numbers by their value; rows of another
    split may lack some, but not add any. On disk, see :class:`razorlight.data.csv_data.CSVData`::

        file,label
        birds/0001.jpg,wren

    Args:
        root: the folder that holds the CSV and the images.
        label: the column of the classes.
        **kwargs: see :class:`razorlight.data.csv_data.CSVData`.

    Example:
        >>> data = ClassificationCSV("my_data", "species", image_size=64, batch_size=2)
        >>> data.class_names
        ('cat', 'dog')
    """

    def __init__(self, root: str = "data", label: str = "label", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.label = label

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # read when first asked for
        """The names of the classes, by class id.

        Raises:
            RazorError: if the CSV cannot be read.
        """
        return _sorted({row.text(self.label) for row in self.training_rows})

    def targets_of(self, rows: Sequence[Row]) -> list[int]:
        """The classes of some rows."""
        ids = _ids(self.class_names)
        return [_known(row, row.text(self.label), ids) for row in rows]

    def group(self, row: Row) -> Hashable:
        """The class."""
        return row.text(self.label)

    def samples(self, split: Split) -> LabelledImages:
        """The images of a split and their classes, in the order of the rows."""
        found = super().samples(split)
        pairs = [*zip(found.files, found.targets, strict=True)]
        return LabelledImages(pairs, self.class_names, self.images)


class MultiLabelCSV(CSVData, WholeImageData):
    """Images with any number of classes each, or none, which a CSV says.

    Each class has a column of 0 and 1, or one column names the classes of an image. On disk, see
    :class:`razorlight.data.csv_data.CSVData`::

        file,cat,dog                  labels: [cat, dog]
        0001.jpg,1,1

        file,labels                   labels: labels
        0001.jpg,cat;dog

    Targets say which classes an image has, bool (B, classes). With MixUp or CutMix, those of
    training batches are shares, float32.

    Args:
        root: the folder that holds the CSV and the images.
        labels: the columns of 0 and 1, one for each class; or the one column that names classes,
            which are then those of the training rows, sorted.
        separator: what stands between the names in one cell.
        **kwargs: see :class:`razorlight.data.csv_data.CSVData`.

    Raises:
        RazorError: without a column or a separator.

    Example:
        >>> data = MultiLabelCSV("my_data", "tags", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, targets = next(iter(data.train_dataloader()))
        >>> images.shape, targets.shape, targets.dtype
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 3]), torch.bool)
    """

    def __init__(
        self,
        root: str = "data",
        labels: list[str] | str = "labels",
        separator: str = ";",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        if not labels or not separator:
            raise RazorError("labels: name the columns of the classes, or one and its separator")
        if not isinstance(labels, str):
            _require_once("labels", labels)
        self.labels = labels
        self.separator = separator

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by the places of the targets.

        Raises:
            RazorError: if the CSV cannot be read, or names no class.
        """
        if not isinstance(self.labels, str):
            return tuple(self.labels)
        names = _sorted({name for row in self.training_rows for name in self._names(row)})
        if not names:
            raise RazorError(
                f"{self.training_rows[0].file}: no cell of {self.labels} names a class"
            )
        if {*names} <= {"0", "1"}:
            raise RazorError(
                f"{self.training_rows[0].file}: {self.labels} holds {' and '.join(names)}, and no "
                f"names of classes; give a list of such columns, as --data.labels "
                f'"[{self.labels}, OTHER]"'
            )
        return names

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def class_shares(self) -> list[float]:
        """The share of the training images that have each class."""
        shares: list[float] = self.targets_of(self.rows("train")).double().mean(0).tolist()
        return shares

    def targets_of(self, rows: Sequence[Row]) -> Tensor:
        """Which classes some rows have, bool (rows, classes)."""
        if not isinstance(self.labels, str):
            return torch.tensor([[row.flag(column) for column in self.labels] for row in rows])
        ids, targets = _ids(self.class_names), torch.zeros(len(rows), self.num_classes)
        for row, target in zip(rows, targets, strict=True):
            target[[_known(row, name, ids) for name in self._names(row)]] = 1
        return targets.bool()

    def blank_sample(self) -> tuple[Tensor, Tensor]:
        """A black image, uint8, of no class."""
        return self.images.blank((256, 256)), torch.zeros(self.num_classes, dtype=torch.bool)

    def train_collate(self) -> Callable[[list[Any]], Any] | None:
        """MixUp or CutMix, if they are asked for."""
        return mixing_collate(self.augment, self.num_classes)

    def show_target(self, target: Tensor) -> str:
        """The names of the classes, with their shares where images are mixed."""
        names = self.class_names
        if target.dtype == torch.bool:
            return ", ".join(names[label] for label in target.nonzero().flatten().tolist()) or "-"
        mixed = [(share, name) for share, name in zip(target.tolist(), names, strict=True) if share]
        return " + ".join(f"{share:.0%} {name}" for share, name in mixed) or "-"

    def _names(self, row: Row) -> list[str]:
        """The names in the one column of classes; an empty cell has none."""
        assert isinstance(self.labels, str)
        text = row.cells[self.labels] if self.labels in row.cells else row.text(self.labels)
        return [name.strip() for name in text.split(self.separator) if name.strip()]


class RegressionCSV(CSVData, WholeImageData):
    """Images with one number each, or several, which stand in columns of a CSV.

    On disk, see :class:`razorlight.data.csv_data.CSVData`::

        file,age,weight               targets: [age, weight]
        0001.jpg,3.5,12

    Targets are the numbers as they stand there, float32 (B, targets).

    Args:
        root: the folder that holds the CSV and the images.
        targets: the columns of the numbers; ``[target]`` if None.
        **kwargs: see :class:`razorlight.data.csv_data.CSVData`.

    Raises:
        RazorError: without a column, or if images should be mixed.

    Example:
        >>> data = RegressionCSV("my_data", ["age"], image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, targets = next(iter(data.train_dataloader()))
        >>> images.shape, targets.shape, targets.dtype
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 1]), torch.float32)
    """

    def __init__(self, root: str = "data", targets: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        targets = ["target"] if targets is None else targets
        if not targets or isinstance(targets, str):
            raise RazorError(f"targets: give a list of columns, such as [age], and not {targets!r}")
        if self.augment.mixup or self.augment.cutmix:
            raise RazorError(
                "augment: mixup and cutmix mix classes, and no numbers; leave them out"
            )
        _require_once("targets", targets)
        self.targets = targets

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns of the numbers."""
        return tuple(self.targets)

    @property
    def num_targets(self) -> int:
        """How many numbers an image has."""
        return len(self.targets)

    def target_moments(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each number over the training images.

        Raises:
            RazorError: for a number that never varies.
        """
        rows = self.rows("train")
        values = self._numbers(rows)
        mean, std = values.mean(0).tolist(), values.std(0, correction=0).tolist()
        for name, centre, spread in zip(self.targets, mean, std, strict=True):
            if not spread:
                raise RazorError(
                    f"targets: {name} is {centre:g} in all training rows of {rows[0].file}; leave "
                    "it out"
                )
        return mean, std

    def targets_of(self, rows: Sequence[Row]) -> Tensor:
        """The numbers of some rows, float32 (rows, targets)."""
        return self._numbers(rows).float()

    def blank_sample(self) -> tuple[Tensor, Tensor]:
        """A black image, uint8, and zeros."""
        return self.images.blank((256, 256)), torch.zeros(self.num_targets)

    def show_target(self, target: Tensor) -> str:
        """The numbers, with their names."""
        pairs = zip(self.targets, target.tolist(), strict=True)
        return ", ".join(f"{name} {value:.4g}" for name, value in pairs)

    def _numbers(self, rows: Sequence[Row]) -> Tensor:
        numbers = [[row.number(name) for name in self.targets] for row in rows]
        return torch.tensor(numbers, dtype=torch.float64)


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Names in order; whole numbers by their value."""
    are_numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if are_numbers else sorted(names))


def _require_once(argument: str, columns: Sequence[str]) -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise RazorError(f"{argument}: {name} is given twice; leave one of them out")


def _ids(names: Sequence[str]) -> dict[str, int]:
    return {name: label for label, name in enumerate(names)}


def _known(row: Row, name: str, ids: dict[str, int]) -> int:
    if name not in ids:
        raise RazorError(f"{row.place}: no row of train has the class {name!r}; correct the line")
    return ids[name]
