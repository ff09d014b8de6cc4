"""CIFAR-10 and CIFAR-100."""

from typing import Any

from torchvision import datasets

from razorlight.data.augmentation import small_images
from razorlight.data.held_out import Split
from razorlight.data.public_set import PublicSet
from razorlight.data.samples import LabelledSamples
from razorlight.data.transforms import Pipelines


class CIFAR10(PublicSet):
    """CIFAR-10: 10 classes of things and animals, 32x32 pixels.

    50,000 images to train and validate, 10,000 to test. The Python version of the data, 170 MB to
    download, on disk::

        root/cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}

    Its authors state no licence. Cite Krizhevsky, "Learning Multiple Layers of Features from Tiny
    Images", 2009.

    Args:
        root: folder that holds the data set's own folder.
        image_size: side of the resized images, in pixels.
        **kwargs: see :class:`PublicSet`.

    Example:
        >>> data = CIFAR10("data", batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 32, 32]), torch.Size([2]))
    """

    num_classes = 10
    source = datasets.CIFAR10

    def __init__(self, root: str = "data", image_size: int = 32, **kwargs: Any) -> None:
        super().__init__(root, image_size, **kwargs)

    def read(self, part: Split) -> LabelledSamples:
        """The unpacked batches; those of training take 150 MB of memory."""
        return self.source(self.root, train=part == "train")

    def pipelines(self) -> Pipelines:
        """Shifts and flips in training, whole images in evaluation."""
        return small_images(32, self.image_size, self.mean, self.std, self.augment)


class CIFAR100(PublicSet):
    """CIFAR-100: 100 fine classes, 500 images each to train and validate.

    Sizes, licence, citation and arguments as :class:`CIFAR10`. On disk::

        root/cifar-100-python/{train,test,meta}

    Example:
        >>> data = CIFAR100("data", batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 32, 32]), torch.Size([2]))
    """

    num_classes = 100
    source = datasets.CIFAR100

    def __init__(self, root: str = "data", image_size: int = 32, **kwargs: Any) -> None:
        super().__init__(root, image_size, **kwargs)

    def read(self, part: Split) -> LabelledSamples:
        """The unpacked batches; those of training take 150 MB of memory."""
        return self.source(self.root, train=part == "train")

    def pipelines(self) -> Pipelines:
        """Shifts and flips in training, whole images in evaluation."""
        return small_images(32, self.image_size, self.mean, self.std, self.augment)
