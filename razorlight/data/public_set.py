"""Public data sets of classification, as their authors divided them."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import tv_tensors

from razorlight.data.classification import ClassificationData
from razorlight.data.files import missing_data, require_below
from razorlight.data.held_out import Split, hold_out
from razorlight.data.reading import read_image
from razorlight.data.samples import LabelledSamples, Samples
from razorlight.errors import RazorError


class PublicSet(ClassificationData):
    """A public data set that its authors divided into images to train and images to test.

    A subclass gives the number of classes (their names are read from the data), the official parts,
    and the class of torchvision that downloads and reads them. If torchvision has none, it reads
    the parts itself (:meth:`read`).

    Args:
        root: folder that holds the data set's own folder.
        image_size: side of the square images, in pixels.
        val_fraction: share of the training images that is held out for validation, at random but
            always alike, in (0, 1); official validation images count as training images then. If
            None, the official validation images, or a tenth if there are none.
        split_seed: seed of that division.
        download: Whether to fetch the data if they are not there.
        **kwargs: see :class:`ClassificationData`.

    Attributes:
        num_classes: known without the data.
        parts: ``train`` and ``test``, some have ``val``.
        source: torchvision's class.
        remedy: the end of the message that the data are missing.
    """

    num_classes: int
    parts: ClassVar[tuple[Split, ...]] = ("train", "test")
    source: ClassVar[Callable[..., Any]]
    remedy: ClassVar[str] = "set root, or download: true on a machine online"

    def __init__(
        self,
        root: str = "data",
        image_size: int = 224,
        val_fraction: float | None = None,
        split_seed: int = 0,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, image_size, **kwargs)
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.download = download
        self._read: dict[Split, LabelledSamples] = {}

    def read(self, part: Split) -> LabelledSamples:
        """The images and classes of one of :attr:`parts`."""
        return self.source(self.root, split=part, loader=self._read_image)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # read when first asked for
        """The names of the classes, as the data set spells them.

        Raises:
            RazorError: if the data are missing.
        """
        return tuple(self._part("train").classes)

    def prepare_data(self) -> None:
        """Download the data if that is wanted, and check that they are there.

        Raises:
            RazorError: if they are missing or damaged.
        """
        if self.download:
            with missing_data(type(self).__name__, self.root, self.remedy):
                self.source(self.root, download=True)
        for part in self.parts:
            self._part(part)

    def samples(self, split: Split) -> Samples:
        """The images of a split and their classes."""
        has_val = "val" in self.parts
        if split == "test" or (has_val and self.val_fraction is None):
            return self._part(split)
        pool: ConcatDataset[Any] = ConcatDataset(
            [cast(Dataset[Any], self._part(part)) for part in self.parts if part != "test"]
        )
        fraction = 0.1 if self.val_fraction is None else self.val_fraction
        return Subset(pool, hold_out(len(pool), split, fraction, self.split_seed))

    def _read_image(self, path: str | Path) -> tv_tensors.Image:
        return read_image(require_below(self.root, path))

    def _part(self, part: Split) -> LabelledSamples:
        """A part, read once."""
        if part not in self._read:
            with missing_data(type(self).__name__, self.root, self.remedy):
                source = self.read(part)
            if len(source.classes) != self.num_classes or not len(source):
                raise RazorError(
                    f"{type(self).__name__}: {part} has {len(source)} images of "
                    f"{len(source.classes)} classes in {self.root}, where {self.num_classes} "
                    f"classes should be; {self.remedy}"
                )
            self._read[part] = source
        return self._read[part]
