"""The targets of samples without their images, and how often each class occurs."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from razorlight.data.image_readers import PICTURES, ImageReader
from razorlight.data.raster_samples import RasterWindows
from razorlight.data.samples import LabelledImages, PairedImages, Samples, TargetedImages
from razorlight.data.transforms import IGNORE_INDEX


def located(samples: Any, index: int) -> tuple[Any, int]:
    """The samples that lie behind subsets and concatenations, and the place of a sample there."""
    if isinstance(samples, Subset):
        return located(samples.dataset, samples.indices[index])
    if isinstance(samples, ConcatDataset):
        part = bisect_right(samples.cumulative_sizes, index)
        before = samples.cumulative_sizes[part - 1] if part else 0
        return located(samples.datasets[part], index - before)
    return samples, index


def files_of(samples: Samples, index: int) -> tuple[Path, ...]:
    """The files of a sample: its image, and its map where it has one. None if they are unknown."""
    source, place = located(samples, index)
    if isinstance(source, TargetedImages):
        return (source.files[place],)
    if isinstance(source, RasterWindows):
        return source.files(place)
    return source.pairs[place] if isinstance(source, PairedImages) else ()


def image_files(samples: Samples) -> list[Path]:
    """The image files of samples, each once."""
    if isinstance(samples, RasterWindows):  # of which a file has many
        return [image for image, _ in samples.pairs]
    return [*dict.fromkeys(files_of(samples, index)[0] for index in range(len(samples)))]


def reader_behind(samples: Samples, index: int) -> ImageReader:
    """The reader of the image of a sample."""
    reader: ImageReader = getattr(located(samples, index)[0], "images", PICTURES)
    return reader


def target_alone(samples: Samples, index: int) -> Any:
    """The target of a sample, or None where it cannot be had without the image.

    Raises:
        RazorError: if a map cannot be read.
    """
    source, place = located(samples, index)
    known = isinstance(source, TargetedImages | PairedImages | RasterWindows)
    return source.target(place) if known else None


def labels_in(target: Any) -> dict[int, int]:
    """How often each label occurs in a target: a class, a map of classes, or which there are."""
    if not isinstance(target, Tensor):
        return {int(target): 1}
    if target.dtype == torch.bool:
        return dict.fromkeys(target.nonzero().flatten().tolist(), 1)
    counts = torch.bincount(target.flatten(), minlength=IGNORE_INDEX + 1)
    return {label: int(counts[label]) for label in counts.nonzero().flatten().tolist()}


def count_labels(samples: Samples, num_workers: int) -> Counter[int]:
    """Count the images, or the pixels, of each label; where it can be, images are not read.

    Args:
        samples: samples whose targets are classes, or maps of classes.
        num_workers: processes that read maps and images.

    Raises:
        RazorError: if a file cannot be read.
    """
    known = classes_known(samples)
    if known is not None:
        return known
    counts: Counter[int] = Counter()
    for found in read_in_parallel(_Labels(samples), num_workers):
        counts.update(found)
    return counts


def classes_of(samples: Samples, num_workers: int) -> list[int]:
    """The class of each sample; where it must be, images are read, by processes."""
    known = class_of_each(samples)
    if known is not None:
        return known
    return [label for found in read_in_parallel(_Labels(samples), num_workers) for label in found]


def class_of_each(samples: Samples) -> list[int] | None:
    """The class of each sample, or None where images or maps would have to be read for it."""
    if not len(samples) or not all(
        isinstance(source, LabelledImages) for source in _sources(samples)
    ):
        return None
    return [int(target_alone(samples, index)) for index in range(len(samples))]


def classes_known(samples: Samples) -> Counter[int] | None:
    """How many samples have each class; None where images or maps would have to be read for it."""
    if not len(samples) or not all(
        isinstance(source, TargetedImages) for source in _sources(samples)
    ):
        return None
    targets = (target_alone(samples, index) for index in range(len(samples)))
    return Counter(label for target in targets for label in labels_in(target))


def read_in_parallel(dataset: Dataset[Any], num_workers: int) -> Iterator[Any]:
    """The items of a data set, in order, read by processes."""
    loader = DataLoader(dataset, batch_size=_AT_ONCE, num_workers=num_workers, collate_fn=list)
    for items in loader:
        yield from items


_AT_ONCE = 8


def _sources(samples: Any) -> Sequence[Any]:
    """The sets of samples behind subsets and concatenations."""
    if isinstance(samples, Subset):
        return _sources(samples.dataset)
    if isinstance(samples, ConcatDataset):
        return [source for part in samples.datasets for source in _sources(part)]
    return [samples]


class _Labels(Dataset[dict[int, int]]):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[int, int]:
        target = target_alone(self.samples, index)
        return labels_in(self.samples[index][1] if target is None else target)
