"""ImageNet-1k."""

from functools import cache
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from razorlight.data.held_out import Split
from razorlight.data.image_folder import ImageFolder


class ImageNet(ImageFolder):
    """ImageNet-1k (ILSVRC 2012): 1,000 classes, one folder each by WordNet id.

    1,281,167 images to train and 50,000 to validate, which published results are judged by; the
    test set has no public labels. Access is granted at https://image-net.org, so the data have to
    be placed by hand, on disk as torchvision and timm have them::

        root/imagenet/train/<wnid>/*.JPEG    n01440764, ...
        root/imagenet/val/<wnid>/*.JPEG

    If folders are missing (ImageNet-100), the ids of the classes stay those of all 1,000.

    Licence: for non-commercial research and education. Cite Russakovsky et al., "ImageNet Large
    Scale Visual Recognition Challenge", IJCV 2015.

    Args:
        root: the folder that holds ``imagenet``.
        image_size: side of the square images, in pixels.
        **kwargs: see :class:`ClassificationData`.

    Example:
        >>> data = ImageNet("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 1000
    splits = ("train", "val")
    remedy = "ImageNet reads root/imagenet/{train,val}/<wnid>/*.JPEG, from https://image-net.org"

    def __init__(self, root: str = "data", image_size: int = 224, **kwargs: Any) -> None:
        # published results are judged by the images of val
        super().__init__(root, image_size, val_fraction=None, **kwargs)

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # as in ImageFolder
        """The names of WordNet, such as ``tench, Tinca tinca``."""
        info = _info()
        return tuple(info.index_to_description(label) for label in range(self.num_classes))

    @property
    def folder_names(self) -> tuple[str, ...]:
        """The WordNet ids, sorted."""
        return tuple(_info().label_names())

    def folder(self, split: Split) -> Path:
        """The folder of the images of a split."""
        return self.root / "imagenet" / split


@cache
def _info() -> ImageNetInfo:
    return ImageNetInfo()
