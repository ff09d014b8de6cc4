"""A folder of any images, to be predicted."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as tvf

from razorlight.data.datasets import open_image, readable, require_folder
from razorlight.errors import RazorError

COVERED = 1
"""Value of the mask that goes with an image: what a pipeline pads has another."""


class PredictFolder(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """All images below a folder; gives ``(image uint8 (3, H, W), mask uint8 (H, W))``.

    The mask is :data:`COVERED` everywhere. It passes through a pipeline with the image, and tells
    afterwards which part of what came out shows the image.

    Args:
        folder: where to look, at any depth.

    Attributes:
        files: the images, sorted.
        names: what to call that which is made of each: its path below ``folder`` without the
            suffix; with it, if that leaves two alike.

    Raises:
        RazorError: if there is no such folder, or no image in it.
    """

    def __init__(self, folder: Path) -> None:
        require_folder(folder, "set predict_folder to a folder of images")
        self.files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMG_EXTENSIONS)
        if not self.files:
            raise RazorError(
                f"no images in {folder}; predict_folder is searched for {' '.join(IMG_EXTENSIONS)}"
            )
        paths = [file.relative_to(folder) for file in self.files]
        stems = [path.with_suffix("") for path in paths]
        unlike = len(set(stems)) == len(stems)
        self.names = [path.as_posix() for path in (stems if unlike else paths)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image = read_photograph(self.files[index])
        return image, tv_tensors.Mask(torch.full(image.shape[-2:], COVERED, dtype=torch.uint8))


def read_photograph(path: Path) -> tv_tensors.Image:
    """Decode any image file to RGB uint8 (3, H, W), as a viewer shows it.

    It is turned as its EXIF data say, grey of 16 bits is brought to 8, and transparency dropped.

    Raises:
        RazorError: if the file is truncated or no image, or its values are neither of 8 nor of 16
            bits.
    """
    with readable("image", path), open_image(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            image = Image.fromarray(_eight_bits(np.asarray(image), path))
        return tv_tensors.Image(tvf.pil_to_tensor(image.convert("RGB")))


def _eight_bits(values: np.ndarray, path: Path) -> np.ndarray:
    highest = np.iinfo(np.uint16).max
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > highest:
        raise RazorError(
            f"image {path} has values of more than 16 bits; save it with 8 or 16 bits a channel"
        )
    return (values // (highest // 255)).astype(np.uint8)
