"""What is looked at before a run, within a few seconds: some files, and the classes there are."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from razorlight.data.label_coding import LabelCoding
from razorlight.data.raster_samples import RasterWindows
from razorlight.data.samples import PairedImages, Samples
from razorlight.data.targets import (
    classes_known,
    files_of,
    labels_in,
    reader_behind,
    target_alone,
)
from razorlight.data.transforms import IGNORE_INDEX

FILES = 300
"""The most samples whose files are looked at."""

WHOLE = 8
"""The samples of them that are read whole."""


def look_at_some(samples: Samples) -> Counter[int]:
    """Read some maps, the heads of their images, and a few samples whole.

    Args:
        samples: the samples of a split. Of those that are no files, nothing is read.

    Returns:
        The pixels of each label, in maps of classes.

    Raises:
        RazorError: for a file that cannot be used, as training would meet it.
    """
    found: Counter[int] = Counter()
    for number, index in enumerate(_chosen(samples)):
        target = target_alone(samples, index)
        for image in files_of(samples, index)[:1]:
            reader_behind(samples, index).size(image)
            if number < WHOLE:
                samples[index]
        if isinstance(target, torch.Tensor) and not target.is_floating_point():
            found.update(labels_in(target))
    return found


def warn_of_unseen_classes(
    what: str, samples: Any, found: Counter[int], names: Sequence[str]
) -> None:
    """Warn in one line of classes without a training image, or without a pixel of the masks.

    Args:
        what: name of the data, for the message.
        samples: the training samples.
        found: what :func:`look_at_some` found in them.
        names: the names of the classes.
    """
    classes = classes_known(samples)
    labels = found if classes is None else classes
    unseen = [repr(name) for label, name in enumerate(names) if not labels[label]]
    if not labels or not unseen:
        return
    missing = ", ".join(unseen[:3]) + (f" and {len(unseen) - 3} more" if len(unseen) > 3 else "")
    if classes is not None:
        rank_zero_warn(f"{what}: no training image is of {missing}")
        return
    looked, total, void = min(FILES, len(samples)), len(samples), labels[IGNORE_INDEX]
    share = f"{looked} of the {total}" if looked < total else f"the {total}"
    paired = isinstance(samples, PairedImages | RasterWindows)
    coding = samples.reader if paired else None
    may_map = isinstance(coding, LabelCoding) and coding.label_map is not None and void
    way_out = f"; to read {IGNORE_INDEX} as a class, set label_map: {{{IGNORE_INDEX}: CLASS}}"
    rank_zero_warn(
        f"{what}: no pixel of {share} training masks is of {missing}; "
        f"{void / labels.total():.0%} of the pixels are {IGNORE_INDEX}, which is ignored. "
        f"The masks hold class ids, 0 to {len(names) - 1}{way_out if may_map else ''}"
    )


def _chosen(samples: Samples) -> list[int]:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    return order[:FILES].tolist()
