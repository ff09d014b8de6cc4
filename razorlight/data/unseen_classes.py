"""A warning of classes that training never sees."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch.utils.data import ConcatDataset, Subset

from razorlight.data.label_coding import LabelCoding
from razorlight.data.samples import LabelledImages, PairedImages
from razorlight.data.transforms import IGNORE_INDEX
from razorlight.errors import RazorError

MASKS = 300
"""The most masks that are read, within a few seconds."""


@rank_zero_only
def warn_of_unseen_classes(what: str, source: Any, names: Sequence[str]) -> None:
    """Warn in one line of classes without a training image, or without a pixel of the masks.

    Args:
        what: name of the data, for the message.
        source: the training samples. Kinds of samples that cannot give a target without its image
            are skipped.
        names: the names of the classes.
    """
    unseen, looked, pixels, void = set(range(len(names))), 0, 0, 0
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0)).tolist()
    for index in order:
        try:
            target = _target(source, index)
        except RazorError:
            return  # training will say so when it meets the file
        if target is None or not unseen:
            return
        looked += 1
        if isinstance(target, int):
            unseen.discard(target)
            continue
        counts = torch.bincount(target.flatten(), minlength=IGNORE_INDEX + 1)
        unseen -= set(counts.nonzero().flatten().tolist())
        pixels, void = pixels + int(counts.sum()), void + int(counts[IGNORE_INDEX])
        if looked == MASKS:
            break
    if not unseen:
        return
    missing = _some([f"'{names[label]}'" for label in sorted(unseen)])
    if not pixels:
        rank_zero_warn(f"{what}: no training image is of {missing}")
        return
    share = f"{looked} of the {len(order)}" if looked < len(order) else f"the {looked}"
    known = isinstance(source, PairedImages) and isinstance(source.reader, LabelCoding)
    may_map = known and source.reader.label_map is not None and void
    way_out = f"; to read {IGNORE_INDEX} as a class, set label_map: {{{IGNORE_INDEX}: CLASS}}"
    rank_zero_warn(
        f"{what}: no pixel of {share} training masks is of {missing}; {void / pixels:.0%} of the "
        f"pixels are {IGNORE_INDEX}, which is ignored. "
        f"The masks hold class ids, 0 to {len(names) - 1}{way_out if may_map else ''}"
    )


def _target(source: Any, index: int) -> Any:
    """The target of a sample alone, or None where it cannot be had without the image."""
    if isinstance(source, Subset):
        return _target(source.dataset, source.indices[index])
    if isinstance(source, ConcatDataset):
        part = bisect_right(source.cumulative_sizes, index)
        before = source.cumulative_sizes[part - 1] if part else 0
        return _target(source.datasets[part], index - before)
    known = isinstance(source, LabelledImages | PairedImages)
    return source.target(index) if known else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
