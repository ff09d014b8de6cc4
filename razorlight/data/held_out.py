"""Training samples that are held out for validation, in the same way in every run."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info

from razorlight.data.files import pair_by_stem, subfolders
from razorlight.errors import RazorError

Split = Literal["train", "val", "test"]


def hold_out(total: int, split: Split, fraction: float, seed: int) -> list[int]:
    """Divide the training samples of a public data set, which never change.

    Args:
        total: number of samples.
        split: part that is wanted, ``train`` or ``val``.
        fraction: share of the samples held out for validation, in (0, 1).
        seed: seed of the permutation.

    Returns:
        The indices of the part.

    Raises:
        RazorError: if ``fraction`` leaves either part empty.
    """
    held_out = round(total * fraction)
    _require_both(held_out, total, fraction)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[:held_out] if split == "val" else order[held_out:]


@dataclass(frozen=True)
class HeldOut:
    """How a folder of one's own is divided if it has no ``val``.

    A file's name decides where it goes: files that are added later move few of the others.

    Attributes:
        fraction: share of the files held out for validation, in (0, 1); None to ask for a folder
            ``val``.
        seed: seed of the division.
        fold: which share is held out, from 0. With a fraction of 1/k there are k of them, which are
            all files: k-fold cross-validation.

    Raises:
        RazorError: for a fraction or a fold out of its range.
    """

    fraction: float | None
    seed: int
    fold: int = 0

    def __post_init__(self) -> None:
        if self.fraction is None:
            return
        if not 0 < self.fraction < 1:
            raise RazorError(f"val_fraction is {self.fraction}; choose it in (0, 1)")
        folds = round(1 / self.fraction)
        if not 0 <= self.fold < folds:
            raise RazorError(
                f"val_fold is {self.fold}; a val_fraction of {self.fraction} has folds 0 to "
                f"{folds - 1}"
            )

    def divides(self, folder: Path, split: Split) -> bool:
        """Whether a split is a part of the training samples, since there is no folder ``val``.

        Args:
            folder: the folder that holds the splits.
            split: the split that is wanted.

        Raises:
            RazorError: for a fold, if there is a folder ``val``.
        """
        if (folder / "val").is_dir():
            self.require_no_fold(folder / "val")
            return False
        return split != "test" and self.fraction is not None

    def require_no_fold(self, val: object) -> None:
        """Refuse a fold where the data have a ``val``, which would be taken in place of it.

        Args:
            val: where it is.

        Raises:
            RazorError: if a fold is asked for.
        """
        if self.fold:
            raise RazorError(
                f"val_fold is {self.fold}, and {val} is validated in any case; leave val_fold out, "
                "or move val into train"
            )

    def source(self, folder: Path, split: Split) -> Path:
        """The folder of the samples of a split.

        Where there is no ``val`` it is ``train`` for both, or, without any split, ``folder``.

        Args:
            folder: the folder that holds the splits.
            split: the split that is wanted.

        Raises:
            RazorError: if splits seem to have other names.
        """
        if not self.divides(folder, split):
            return folder / split
        names = subfolders(folder) if folder.is_dir() else []
        unknown = sorted({*names} - {"train", "test"})
        if unknown and all(name.lower() in _SPLITS for name in names):
            raise RazorError(
                f"{folder} holds {', '.join(unknown)}, which seem to be splits; call the folders "
                "of splits train, val and test"
            )
        return folder / "train" if {"train", "test"} & {*names} else folder

    def part(
        self,
        files: Sequence[Path],
        source: Path,
        split: Split,
        groups: Sequence[Hashable],
        why: str = "there is no folder val",
    ) -> list[int]:
        """Choose the files of ``train`` or ``val``; for ``val`` a line says so.

        Args:
            files: files of all samples.
            source: the folder that they are below.
            split: the part that is wanted.
            groups: one for each file, such as its class. The share is held out of each group, in
                the first fold at least one file, but never the only one.
            why: reason why files are held out, for the line.

        Returns:
            The indices of the part, in order.

        Raises:
            RazorError: if nothing can be held out.
        """
        assert self.fraction is not None
        members: dict[Hashable, list[int]] = defaultdict(list)
        for index, group in enumerate(groups):
            members[group].append(index)
        held_out = set()
        for indices in members.values():
            indices.sort(key=lambda index: self._place(files[index].relative_to(source)))
            first, last = self._ends(len(indices))
            held_out.update(indices[first:last][: len(indices) - 1])
        _require_both(len(held_out), len(files), self.fraction)
        if split == "val":
            rank_zero_info(
                f"{why}: {len(held_out)} of the {len(files)} images of {source} "
                "are held out for validation, in every run the same "
                f"(val_fraction {self.fraction}, split_seed {self.seed}{self._which})"
            )
        return [index for index in range(len(files)) if (index in held_out) == (split == "val")]

    def pairs(
        self,
        root: Path,
        maps: str,
        split: Split,
        remedy: str,
        suffix: str | None = None,
        formats: Sequence[str] = (".png",),
    ) -> list[tuple[Path, Path]]:
        """The images of a split in ``root/images``, each with its map in a folder beside it.

        Args:
            root: the folder of the two.
            maps: name of the folder of the maps.
            split: the split that is wanted.
            remedy: way to get the two folders, for messages.
            suffix: end of the stems of masks; None for maps whose names have none.
            formats: ends of the names of maps, in lower case.

        Raises:
            RazorError: as :func:`pair_by_stem` and :meth:`part` do.
        """
        images = root / "images"
        source = self.source(images, split)
        of_source = root / maps / source.relative_to(images)
        pairs = pair_by_stem(source, of_source, remedy, suffix, formats)
        if not self.divides(images, split):
            return pairs
        files = [image for image, _ in pairs]
        return [pairs[index] for index in self.part(files, source, split, [None] * len(files))]

    def _ends(self, total: int) -> tuple[int, int]:
        """Where the fold of a group begins and ends; of a small group, the first has a file."""
        assert self.fraction is not None
        ends = [round(total * self.fraction * fold) for fold in (self.fold, self.fold + 1)]
        return max(ends[0], 1) if self.fold else 0, max(ends[1], 1)

    @property
    def _which(self) -> str:
        return f", val_fold {self.fold}" if self.fold else ""

    def _place(self, name: Path) -> bytes:
        return sha256(f"{self.seed}/{name.as_posix()}".encode()).digest()


_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Names of folders, in lower case, that are no classes if there are no others beside them."""


def _require_both(held_out: int, total: int, fraction: float) -> None:
    if not 0 < held_out < total:
        raise RazorError(
            f"val_fraction {fraction} of {total} samples leaves a split empty; choose one in (0, 1)"
        )
