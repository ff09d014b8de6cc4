"""Images and label maps in files: finding, reading and checking them."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as tvf

from razorlight.data.transforms import IGNORE_INDEX
from razorlight.errors import RazorError

PIL_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError)
"""What PIL raises on files that are missing, truncated, no image, or absurdly large."""


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


def pair_by_stem(images: Path, masks: Path, remedy: str) -> list[tuple[Path, Path]]:
    """Match each image with the PNG of the same stem.

    Args:
        images: folder of image files.
        masks: folder of label maps.
        remedy: how to get the two folders, for the message.

    Returns:
        Pairs ``(image, mask)``, sorted by the image's name.

    Raises:
        RazorError: for a missing folder, no images, or any image or mask without its partner.
    """
    require_folder(images, remedy)
    require_folder(masks, remedy)
    image_files = sorted(f for f in images.iterdir() if f.suffix.lower() in IMG_EXTENSIONS)
    if not image_files:
        raise RazorError(f"no images in {images}; {remedy}")
    mask_of = {f.stem: f for f in masks.glob("*.png")}
    alone = [f for f in image_files if f.stem not in mask_of]
    alone += [mask_of[stem] for stem in sorted(set(mask_of) - {f.stem for f in image_files})]
    if alone:
        first = ", ".join(str(f) for f in alone[:3])
        raise RazorError(
            f"{len(alone)} files of {images} and {masks} lack a partner of the same stem, "
            f"first {first}; add what is missing or move these away"
        )
    return [(f, mask_of[f.stem]) for f in image_files]


def read_image(path: str | Path) -> tv_tensors.Image:
    """Decode an image file to RGB uint8 (3, H, W).

    Raises:
        RazorError: if the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return tv_tensors.Image(tvf.pil_to_tensor(image.convert("RGB")))
    except PIL_ERRORS as error:
        raise RazorError(f"cannot read image {path}: {error}; replace or remove it") from error


@dataclass(frozen=True)
class LabelCoding:
    """How the numbers in a mask file stand for classes.

    Attributes:
        num_classes: classes 0..num_classes-1 come out.
        first: number of class 0 in the file; class c is ``first + c``.
        ignored: the number that becomes 255, the label that no loss or metric counts.
    """

    num_classes: int
    first: int = 0
    ignored: int = IGNORE_INDEX

    def read(self, path: Path) -> tv_tensors.Mask:
        """Read an indexed or grey PNG to class ids, uint8 (H, W).

        Raises:
            RazorError: if the file cannot be read, has colour channels, or holds a number that is
                neither a class nor ``ignored``.
        """
        try:
            with Image.open(path) as image:
                numbers = np.asarray(image).astype(np.int64)
        except PIL_ERRORS as error:
            raise RazorError(f"cannot read mask {path}: {error}; replace or remove it") from error
        if numbers.ndim != 2:
            raise RazorError(
                f"mask {path} has {numbers.shape[2]} channels; "
                "save it as an indexed or grey PNG whose values are class ids"
            )
        classes = numbers - self.first
        unlabelled = numbers == self.ignored
        stray = numbers[((classes < 0) | (classes >= self.num_classes)) & ~unlabelled]
        if stray.size:
            last = self.first + self.num_classes - 1
            raise RazorError(
                f"mask {path}: label {stray[0]} is outside {self.first}..{last} "
                f"(and {self.ignored} to ignore); correct the mask or the list of classes"
            )
        classes[unlabelled] = IGNORE_INDEX
        return tv_tensors.Mask(torch.from_numpy(classes.astype(np.uint8)))


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


class MaskedImages(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """Image files with a mask file each; gives ``(image uint8 (3, H, W), mask uint8 (H, W))``.

    Args:
        samples: the files of images and masks.
        coding: how the masks are read.
    """

    def __init__(self, samples: Sequence[tuple[Path, Path]], coding: LabelCoding) -> None:
        self.samples = samples
        self.coding = coding

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image_path, mask_path = self.samples[index]
        image, mask = read_image(image_path), self.coding.read(mask_path)
        if image.shape[-2:] != mask.shape:
            raise RazorError(
                f"{image_path} is {image.shape[-2]}x{image.shape[-1]} pixels high and wide, "
                f"its mask {mask_path} {mask.shape[0]}x{mask.shape[1]}; they must be equal"
            )
        return image, mask
