"""What data modules share whose targets are of whole images, and more than a class."""

from pathlib import Path
from typing import Any

from razorlight.data.augmentation import BASIC, Augmentation
from razorlight.data.base import RazorDataModule, require_at_least
from razorlight.data.raster_transforms import whole_images
from razorlight.data.transforms import Pipelines


class WholeImageData(RazorDataModule):
    """Images with several classes or numbers each.

    Args:
        root: the folder that holds the data.
        image_size: side of the square images, in pixels.
        augment: variation of the training images; None varies them no more than by default.
        **kwargs: see :class:`RazorDataModule`.

    Raises:
        RazorError: for an image size below 1.
    """

    def __init__(
        self,
        root: str = "data",
        image_size: int = 224,
        augment: Augmentation | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_at_least("image_size", image_size, 1)
        self.root = Path(root)
        self.image_size = image_size
        self.augment = augment or BASIC

    def pipelines(self) -> Pipelines:
        """Random resized crops in training, the centre in evaluation."""
        return whole_images(self.image_size, self.imagery, self.augment)
