"""Images and what belongs to them in files: finding, reading and checking them."""

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as tvf

from razorlight.data.transforms import IGNORE_INDEX
from razorlight.errors import RazorError


def open_image(path: str | Path) -> Image.Image:
    """Open an image file by its content, if it is of a format that data sets come in.

    PIL knows some fifty more, among them EPS, which it hands to another program to run.

    Raises:
        OSError: if it is none of these.
    """
    return Image.open(path, formats=("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF"))


@contextmanager
def missing_data(what: str, root: Path, remedy: str) -> Iterator[None]:
    """Turn what torchvision raises for absent or damaged data into one line.

    Args:
        what: name of the data set.
        root: the folder that was looked into.
        remedy: how to get the data.

    Raises:
        RazorError: in place of a failed download, a missing file, or one that does not parse.
    """
    try:
        yield
    except RazorError:
        raise
    except Exception as error:  # of any kind: readers of JSON, pickles and MAT files have their own
        reason = " ".join("".join(traceback.format_exception_only(error)).split())
        raise RazorError(f"{what}: no usable copy in {root} ({reason}); {remedy}") from error


def require_folder(folder: Path, remedy: str) -> None:
    """Refuse a missing folder.

    Raises:
        RazorError: naming the folder and ``remedy``, the way to get it.
    """
    if not folder.is_dir():
        raise RazorError(f"no folder {folder}; {remedy}")


def pair_by_stem(images: Path, maps: Path, remedy: str) -> list[tuple[Path, Path]]:
    """Match each image with the PNG of the same stem.

    Args:
        images: folder of image files.
        maps: folder of masks or depth maps.
        remedy: how to get the two folders, for the message.

    Returns:
        Pairs ``(image, map)``, sorted by the image's name.

    Raises:
        RazorError: for a missing folder, no images, or any image or map without its partner.
    """
    require_folder(images, remedy)
    require_folder(maps, remedy)
    image_files = sorted(f for f in images.iterdir() if f.suffix.lower() in IMG_EXTENSIONS)
    if not image_files:
        raise RazorError(f"no images in {images}; {remedy}")
    map_of = {f.stem: f for f in maps.glob("*.png")}
    alone = [f for f in image_files if f.stem not in map_of]
    alone += [map_of[stem] for stem in sorted(set(map_of) - {f.stem for f in image_files})]
    if alone:
        raise RazorError(
            f"{len(alone)} files of {images} and {maps} lack a partner of the same stem, "
            f"first {_first(alone)}; add what is missing or move these away"
        )
    return [(f, map_of[f.stem]) for f in image_files]


def require_pairs(pairs: Sequence[tuple[Path, Path]], remedy: str) -> None:
    """Refuse pairs, as a list of the data set names them, of which a file is not there.

    Args:
        pairs: an image and its map each.
        remedy: how to get the data.

    Raises:
        RazorError: naming the first missing files.
    """
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise RazorError(f"{len(missing)} files are missing, first {_first(missing)}; {remedy}")


def require_below(root: Path, path: str | Path) -> Path:
    """Refuse a file that a list of a data set names, and that is not below the data's folder.

    Symbolic links are followed wherever they lead: they are of those who made the folder, and a
    list may be of others.

    Raises:
        RazorError: naming the file.
    """
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise RazorError(f"{path} is not below {root}; correct the list of files that names it")
    return Path(path)


def _first(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths[:3])


@contextmanager
def readable(what: str, path: str | Path) -> Iterator[None]:
    """Name the file that cannot be read.

    Args:
        what: kind of the file, for the message.
        path: the file.

    Raises:
        RazorError: if the file is missing, truncated, absurdly large, or not what it should be.
    """
    try:
        yield
    except RazorError:
        raise
    except Exception as error:  # of any kind: decoders raise whatever they stumble over
        raise RazorError(f"cannot read {what} {path}: {error}; replace or remove it") from error


def read_image(path: str | Path) -> tv_tensors.Image:
    """Decode an image file to RGB uint8 (3, H, W).

    Raises:
        RazorError: if the file is missing, truncated or no image.
    """
    with readable("image", path), open_image(path) as image:
        return tv_tensors.Image(tvf.pil_to_tensor(image.convert("RGB")))


class MapReader(Protocol):
    """How files are read that hold a number for each pixel."""

    def read(self, path: Path) -> tv_tensors.Mask:
        """Read a file to (H, W), of the reader's own dtype.

        Raises:
            RazorError: if the file cannot be read or is not what it should be.
        """


@dataclass(frozen=True)
class LabelCoding:
    """How the numbers in a mask file, 0 to 65535, stand for classes.

    Attributes:
        numbers: of class 0, 1, ... in the file.
        ignored: what becomes 255, the label that no loss or metric counts.
    """

    numbers: Sequence[int]
    ignored: Sequence[int] = (IGNORE_INDEX,)

    def read(self, path: Path) -> tv_tensors.Mask:
        """Read a mask to class ids, uint8 (H, W).

        Raises:
            RazorError: if the file cannot be read, has colour channels, or holds a number that is
                neither a class nor ignored.
        """
        numbers = self.decode(path)
        if numbers.ndim != 2:
            raise RazorError(
                f"mask {path} has {numbers.shape[2]} channels; "
                "save it as an indexed or grey PNG whose values are class ids"
            )
        labels = self._labels[numbers]
        stray = numbers[labels == _STRAY]
        if stray.size:
            ignored = ", ".join(map(str, self.ignored))
            raise RazorError(
                f"mask {path}: label {stray[0]} is outside {self.numbers[0]}..{self.numbers[-1]} "
                f"(and {ignored} to ignore); correct the mask or the list of classes"
            )
        return tv_tensors.Mask(torch.from_numpy(labels.astype(np.uint8)))

    def decode(self, path: Path) -> NDArray[np.integer[Any]]:
        """The numbers of an indexed or grey PNG (H, W), or the channels (H, W, C) of another.

        Raises:
            RazorError: if the file cannot be read.
        """
        with readable("mask", path), open_image(path) as image:
            return np.asarray(image).astype(np.uint16)

    @cached_property
    def _labels(self) -> NDArray[np.int16]:
        """The label of every number."""
        labels = np.full(2**16, _STRAY, np.int16)
        labels[list(self.numbers)] = np.arange(len(self.numbers))
        labels[list(self.ignored)] = IGNORE_INDEX
        return labels


_STRAY = -1


class LabelledImages(Dataset[tuple[tv_tensors.Image, int]]):
    """Image files with a class each; gives ``(image uint8 (3, H, W), class)``.

    Args:
        samples: the files and their classes.
        classes: the names of the classes.
    """

    def __init__(self, samples: Sequence[tuple[Path, int]], classes: Sequence[str]) -> None:
        self.samples = samples
        self.classes = classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, int]:
        path, label = self.samples[index]
        return read_image(path), label


class PairedImages(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """Image files with a map of the same size each; gives ``(image uint8 (3, H, W), map (H, W))``.

    Args:
        pairs: the files of images and maps.
        reader: of the maps: a :class:`LabelCoding`, for masks.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], reader: MapReader) -> None:
        self.pairs = pairs
        self.reader = reader

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image_path, map_path = self.pairs[index]
        image, target = read_image(image_path), self.reader.read(map_path)
        if image.shape[-2:] != target.shape:
            raise RazorError(
                f"{image_path} is {image.shape[-2]}x{image.shape[-1]} pixels high and wide, "
                f"{map_path} {target.shape[0]}x{target.shape[1]}; they must be equal"
            )
        return image, target
