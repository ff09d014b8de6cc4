"""Samples as they lie on the disk: each is read once, and what is wrong with it becomes a line."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as tvf

from razorlight.data.image_readers import PICTURES
from razorlight.data.raster_samples import RasterWindows
from razorlight.data.reading import AS_IT_IS, read_orientation
from razorlight.data.samples import Samples
from razorlight.data.targets import files_of, labels_in, read_in_parallel, reader_behind
from razorlight.errors import RazorError

PerBand = tuple[float, ...]
"""A value for each channel."""


@dataclass
class Look:
    """What was seen of one sample.

    Attributes:
        name: the image's file, or its place in the split; of a window also the place of its corner.
        problem: why the sample cannot be used; empty if it can.
        size: height and width in pixels, as a viewer shows the image; of a window its image's.
        mode: the kind of the file, such as ``RGB``; empty without a file.
        turned: Whether its EXIF data turn the image.
        digest: a hash of the image file's content, or of the image without a file, or of a window.
        mean: mean of each channel, in 0..1 where images are of 8 bits. Of a large image a grid of
            its pixels is taken.
        square: mean of the squares of each channel, likewise.
        labels: how often each label occurs: once for a class of an image, or in pixels.
        numbers: the numbers that a regression learns.
        depths: the nearest and the farthest depth in metres; None where there are none.
        measured: share of the pixels that have a depth.
    """

    name: str
    problem: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    turned: bool = False
    digest: bytes = b""
    mean: PerBand = ()
    square: PerBand = ()
    labels: dict[int, int] = field(default_factory=dict)
    numbers: tuple[float, ...] = ()
    depths: tuple[float, float] | None = None
    measured: float = 0


def looks(samples: Samples, num_workers: int) -> Iterator[Look]:
    """Look at each sample, in order, by processes. Windows lie side by side."""
    in_order = samples.in_order() if isinstance(samples, RasterWindows) else samples
    return read_in_parallel(_Looks(in_order), num_workers)


def look_at(samples: Samples, index: int) -> Look:
    """Read a sample as training would, and say what it is."""
    files = files_of(samples, index)
    look = Look(str(files[0]) if files else f"sample {index}")
    if isinstance(samples, RasterWindows):
        window = samples.tiling[index][1]
        look.name += f" from row {window.top} and column {window.left}"
    try:
        image, target = samples[index]
        if files:
            look.mode = reader_behind(samples, index).describe(files[0])
    except RazorError as error:
        look.problem = str(error)
        return look
    pixels = tvf.to_image(image)
    is_picture = files and reader_behind(samples, index) is PICTURES
    look.turned = bool(is_picture) and read_orientation(files[0]) != AS_IT_IS
    if isinstance(samples, RasterWindows):
        look.size = samples.tiling.sizes[samples.tiling[index][0]]
        # two windows of nothing but sea are no copies
        is_plain = bool((pixels.isnan() | (pixels == pixels[:, :1, :1])).all())
        content = look.name.encode() if is_plain else pixels.numpy().tobytes()
    else:
        look.size = (pixels.shape[-2], pixels.shape[-1])
        content = files[0].read_bytes() if files else pixels.contiguous().numpy().tobytes()
    look.digest = blake2b(content, digest_size=16).digest()
    look.mean, look.square = _moments(pixels)
    if isinstance(target, Tensor) and target.is_floating_point() and target.ndim == 1:
        look.numbers = tuple(target.tolist())
    elif isinstance(target, Tensor) and target.is_floating_point():
        _look_at_depths(look, target)
    else:
        look.labels = labels_in(target)
    return look


class _Looks(Dataset[Look]):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Look:
        return look_at(self.samples, index)


def _moments(image: Tensor) -> tuple[PerBand, PerBand]:
    """Means of the values of each channel and of their squares; a grey picture has three alike."""
    step = max(1, max(image.shape[-2:]) // _GRID)
    values = image[..., ::step, ::step].double().flatten(1)
    if not image.is_floating_point():
        values = (values / 255).expand(3, -1)
    first, second = (part.nanmean(1).nan_to_num(0).tolist() for part in (values, values**2))
    return tuple(first), tuple(second)


_GRID = 256
"""Pixels along the longer side of an image that its mean and deviation are taken from, at least."""


def _look_at_depths(look: Look, depths: Any) -> None:
    known = depths[depths > 0]
    look.measured = known.numel() / depths.numel()
    if known.numel():
        look.depths = (torch.min(known).item(), torch.max(known).item())
