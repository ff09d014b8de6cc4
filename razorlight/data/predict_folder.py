"""A folder of any images, for ``predict``."""

from pathlib import Path

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS

from razorlight.data.files import images_below, require_folder, require_images
from razorlight.data.image_readers import PICTURES, ImageReader

COVERED = 1
"""Value of the mask of an image. Where a pipeline pads the image, the mask has another."""


class PredictFolder(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """All images below a folder; gives ``(image (bands, H, W), mask uint8 (H, W))``.

    The mask is :data:`COVERED` everywhere. It passes through a pipeline with the image, and shows
    afterwards which part of the result is the image, and which is padding.

    Args:
        folder: folder of the images, which may be at any depth.
        images: their reader, by default that of pictures: uint8 (3, H, W).

    Attributes:
        files: the images, sorted.
        names: names for the predictions, by image: its path below ``folder``, without the suffix
            unless two names would be equal.

    Raises:
        RazorError: if there is no such folder, or no image in it.
    """

    def __init__(self, folder: Path, images: ImageReader = PICTURES) -> None:
        self.images = images
        require_folder(folder, "set predict_folder to a folder of images")
        self.files = images_below(folder)
        known = f"predict_folder is searched for {' '.join(IMG_EXTENSIONS)}"
        require_images(self.files, folder, known)
        paths = [file.relative_to(folder) for file in self.files]
        stems = [path.with_suffix("") for path in paths]
        unlike = len(set(stems)) == len(stems)
        self.names = [path.as_posix() for path in (stems if unlike else paths)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image = self.images.read(self.files[index])
        return image, tv_tensors.Mask(torch.full(image.shape[-2:], COVERED, dtype=torch.uint8))
