"""What data modules of classification share."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Sampler, WeightedRandomSampler

from razorlight.data.augmentation import BASIC, Augmentation, mixing_collate
from razorlight.data.base import RazorDataModule, require_at_least
from razorlight.data.class_balance import balancing_weights
from razorlight.data.raster_transforms import whole_images
from razorlight.data.samples import Samples
from razorlight.data.targets import classes_of
from razorlight.data.transforms import Pipelines


class ClassificationData(RazorDataModule):
    """Images with one class each.

    Targets are class ids, int64 (B,). With MixUp or CutMix, those of training batches are shares of
    the classes, float32 (B, classes).

    Args:
        root: the folder that holds the data.
        image_size: side of the square images, in pixels.
        augment: variation of the training images; None varies them no more than by default.
        balanced: Whether training draws images so that all classes come alike, with replacement. An
            epoch has as many images as ever.
        **kwargs: see :class:`RazorDataModule`.

    Attributes:
        class_names: one name per class.

    Raises:
        RazorError: for an image size below 1.
    """

    class_names: tuple[str, ...]

    def __init__(
        self,
        root: str = "data",
        image_size: int = 224,
        augment: Augmentation | None = None,
        balanced: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_at_least("image_size", image_size, 1)
        self.root = Path(root)
        self.image_size = image_size
        self.augment = augment or BASIC
        self.balanced = balanced

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def pipelines(self) -> Pipelines:
        """Random resized crops in training, the centre in evaluation."""
        return whole_images(self.image_size, self.imagery, self.augment)

    def blank_sample(self) -> tuple[Tensor, int]:
        """A black image of the first class."""
        return self.images.blank((256, 256)), 0

    def train_sampler(self, samples: Samples) -> Sampler[int] | None:
        """Draws images by weights that are inverse to the shares of their classes, if asked to."""
        if not self.balanced:
            return None
        labels = classes_of(samples, self.num_workers)
        counts = Counter(labels)
        weights = balancing_weights([counts[label] for label in range(self.num_classes)])
        return WeightedRandomSampler([weights[label] for label in labels], len(labels))

    def train_collate(self) -> Callable[[list[Any]], Any] | None:
        """MixUp or CutMix, if they are asked for."""
        return mixing_collate(self.augment, self.num_classes)

    def show_target(self, target: Tensor) -> str:
        """The name of the class, or those of the two largest shares."""
        if target.ndim == 0:
            return self.class_names[int(target)]
        shares, classes = target.sort(descending=True)
        parts = zip(shares[:2].tolist(), classes[:2].tolist(), strict=True)
        return " + ".join(
            f"{share:.0%} {self.class_names[c]}" for share, c in parts if share >= 0.005
        )
