"""Samples as they lie on the disk: each is read once, and what is wrong with it becomes a line."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as tvf

from razorlight.data.reading import AS_IT_IS, open_image, read_orientation, readable
from razorlight.data.samples import Samples
from razorlight.data.targets import files_of, labels_in, read_in_parallel
from razorlight.errors import RazorError

Three = tuple[float, float, float]
"""A value for each channel."""


@dataclass
class Look:
    """What was seen of one sample.

    Attributes:
        name: the image's file, or its place in the split.
        problem: why the sample cannot be used; empty if it can.
        size: height and width in pixels, as a viewer shows the image.
        mode: Pillow's name of the kind of the file, such as ``RGB``; empty without a file.
        turned: Whether its EXIF data turn the image.
        digest: a hash of the image file's content, or of the image without a file.
        mean: mean of each channel, in 0..1. Of a large image a grid of its pixels is taken.
        square: mean of the squares of each channel, likewise.
        labels: how often each label occurs: once for the class of an image, or in pixels.
        depths: the nearest and the farthest depth in metres; None where there are none.
        measured: share of the pixels that have a depth.
    """

    name: str
    problem: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    turned: bool = False
    digest: bytes = b""
    mean: Three = (0, 0, 0)
    square: Three = (0, 0, 0)
    labels: dict[int, int] = field(default_factory=dict)
    depths: tuple[float, float] | None = None
    measured: float = 0


def looks(samples: Samples, num_workers: int) -> Iterator[Look]:
    """Look at each sample, in order, by processes."""
    return read_in_parallel(_Looks(samples), num_workers)


def look_at(samples: Samples, index: int) -> Look:
    """Read a sample as training would, and say what it is."""
    files = files_of(samples, index)
    look = Look(str(files[0]) if files else f"sample {index}")
    try:
        image, target = samples[index]
        if files:
            with readable("image", files[0]), open_image(files[0]) as file:
                look.mode = file.mode
    except RazorError as error:
        look.problem = str(error)
        return look
    pixels = tvf.to_image(image)
    look.turned = bool(files) and read_orientation(files[0]) != AS_IT_IS
    look.size = (pixels.shape[-2], pixels.shape[-1])
    content = files[0].read_bytes() if files else pixels.contiguous().numpy().tobytes()
    look.digest = blake2b(content, digest_size=16).digest()
    look.mean, look.square = _moments(pixels)
    if isinstance(target, Tensor) and target.is_floating_point():
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


def _moments(image: Tensor) -> tuple[Three, Three]:
    """Means of the values of each channel and of their squares; a grey image has three alike."""
    step = max(1, max(image.shape[-2:]) // _GRID)
    values = image[..., ::step, ::step].double().flatten(1) / 255
    first, second = (part.mean(1).expand(3).tolist() for part in (values, values**2))
    return tuple(first), tuple(second)


_GRID = 256
"""Pixels along the longer side of an image that its mean and deviation are taken from, at least."""


def _look_at_depths(look: Look, depths: Any) -> None:
    known = depths[depths > 0]
    look.measured = known.numel() / depths.numel()
    if known.numel():
        look.depths = (torch.min(known).item(), torch.max(known).item())
