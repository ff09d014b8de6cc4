"""CIFAR-10 and CIFAR-100."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import Subset
from torchvision import datasets
from torchvision.transforms import v2

from razorlight.data.base import LabelledData, Samples, Split, hold_out, require_at_least
from razorlight.data.class_names import CIFAR10_CLASSES, CIFAR100_CLASSES
from razorlight.data.datasets import missing_data
from razorlight.data.transforms import Pipelines, pipeline


class _CIFAR(LabelledData):
    """What the two have in common: 50,000 training and 10,000 test images, RGB 32x32."""

    _source: ClassVar[type[datasets.CIFAR10]]

    def __init__(
        self,
        root: str = "data",
        image_size: int = 32,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_at_least("image_size", image_size, 1)
        self.root = Path(root)
        self.image_size = image_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.download = download
        self._opened: dict[bool, datasets.CIFAR10] = {}

    def prepare_data(self) -> None:
        """Download the batches where that is wanted, and check that they are there.

        Raises:
            RazorError: if they are not.
        """
        with self._explained():
            self._source(str(self.root), download=self.download)

    def samples(self, split: Split) -> Samples:
        """The images of a split and their classes."""
        source = self._open(train=split != "test")
        if split == "test":
            return source
        part = hold_out(len(source), split, self.val_fraction, self.split_seed)
        return Subset(source, part)

    def pipelines(self) -> Pipelines:
        """A crop shifted by up to 4 of the 32 pixels and a flip to train, then the resize."""
        resize = v2.Resize((self.image_size, self.image_size))
        train = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), resize]
        return Pipelines(
            pipeline(train, self.mean, self.std), pipeline([resize], self.mean, self.std)
        )

    def _explained(self) -> AbstractContextManager[None]:
        remedy = "set root, or download: true on a machine online"
        return missing_data(type(self).__name__, self.root, remedy)

    def _open(self, train: bool) -> datasets.CIFAR10:
        """One copy in memory (150 MB) serves both training and validation."""
        if train not in self._opened:
            with self._explained():
                self._opened[train] = self._source(str(self.root), train=train)
        return self._opened[train]


class CIFAR10(_CIFAR):
    """CIFAR-10: 10 classes of things and animals.

    50,000 training images (divided into train and val at random, seeded) and 10,000 to test, in
    ``root/cifar-10-batches-py``, the Python version of the data. Its authors state no licence. Cite
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
        root: the folder that holds ``cifar-10-batches-py``.
        image_size: side that the 32-pixel images are resized to.
        val_fraction: share of the training images held out for validation.
        split_seed: of that division.
        download: fetch the data (170 MB) if they are not there.
        **kwargs: see :class:`RazorDataModule`.
    """

    class_names = CIFAR10_CLASSES
    _source = datasets.CIFAR10


class CIFAR100(_CIFAR):
    """CIFAR-100: 100 fine classes, 500 training images each.

    Sizes, division, licence and citation as :class:`CIFAR10`; in ``root/cifar-100-python``.

    Args:
        root: the folder that holds ``cifar-100-python``.
        image_size: side that the 32-pixel images are resized to.
        val_fraction: share of the training images held out for validation.
        split_seed: of that division.
        download: fetch the data (169 MB) if they are not there.
        **kwargs: see :class:`RazorDataModule`.
    """

    class_names = CIFAR100_CLASSES
    _source = datasets.CIFAR100
