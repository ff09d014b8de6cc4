"""Augmentation for classification: of each image, and of a whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from razorlight.data.transforms import Pipelines, pipeline
from razorlight.errors import RazorError


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied, beside a random crop and a flip.

    Attributes:
        min_area: least share of an image that a crop covers before it is resized, in (0, 1]; 0.22
            in Back Razor's experiments. If None, the usual for the data set: 0.08, as for ImageNet,
            or a shift by an eighth of the side where images are small.
        randaugment: magnitude, 0 to 30, of RandAugment's two operations per image (Cubuk et al.,
            2020); 9 is usual, 0 leaves it out.
        mixup: alpha of MixUp (Zhang et al., 2018), 0 to leave it out.
        cutmix: alpha of CutMix (Yun et al., 2019), 0 to leave it out. Where both are given, each
            batch takes one of them at random.

    Raises:
        RazorError: for a value out of its range.
    """

    min_area: float | None = None
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.min_area is not None and not 0 < self.min_area <= 1:
            raise RazorError(f"augment: min_area is {self.min_area}; choose it in (0, 1]")
        if not 0 <= self.randaugment <= 30:
            raise RazorError(f"augment: randaugment is {self.randaugment}; choose it in 0..30")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise RazorError(f"augment: {name} is {getattr(self, name)}; it must be 0 or more")

    def mixing(self, num_classes: int) -> v2.Transform | None:
        """A transform that mixes the images of a batch, and their classes into shares; or None."""
        mixers: list[v2.Transform] = []
        if self.mixup:
            mixers.append(v2.MixUp(alpha=self.mixup, num_classes=num_classes))
        if self.cutmix:
            mixers.append(v2.CutMix(alpha=self.cutmix, num_classes=num_classes))
        return v2.RandomChoice(mixers) if mixers else None


BASIC = Augmentation()


def classification(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Augmentation = BASIC,
    after_crop: Sequence[v2.Transform] = (),
) -> Pipelines:
    """Training: random resized crop and flip. Evaluation: shorter side to 8/7 of ``size``, centre.

    Args:
        size: side of the images that come out, in pixels.
        mean: mean of each channel that the normalisation subtracts, for values in 0..1.
        std: standard deviation of each channel, likewise.
        augment: further augmentation in training.
        after_crop: steps that follow the crop, before colours are changed.
    """
    crop = [v2.RandomResizedCrop(size, scale=(augment.min_area or 0.08, 1.0)), *after_crop]
    judge = [v2.Resize(round(size * 8 / 7)), v2.CenterCrop(size), *after_crop]
    return Pipelines(
        pipeline(_train_steps(crop, mean, augment), mean, std), pipeline(judge, mean, std)
    )


def small_images(
    native: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Augmentation = BASIC,
) -> Pipelines:
    """For images of few pixels. Training: shift by up to an eighth, and flip. Evaluation: whole.

    Args:
        native: side of the images on disk, in pixels.
        size: side that they are resized to.
        mean: mean of each channel that the normalisation subtracts, for values in 0..1.
        std: standard deviation of each channel, likewise.
        augment: further augmentation in training. If it has a ``min_area``, random resized crops
            take the place of the shift.
    """
    resize = v2.Resize((size, size))
    if augment.min_area is None:
        shift = v2.RandomCrop(native, padding=native // 8, fill=_mean_colour(mean))
        crop = [shift, resize]
    else:
        crop = [v2.RandomResizedCrop(size, scale=(augment.min_area, 1.0))]
    return Pipelines(
        pipeline(_train_steps(crop, mean, augment), mean, std), pipeline([resize], mean, std)
    )


def mixing_collate(augment: Augmentation, num_classes: int) -> "MixingCollate | None":
    """What collates samples to a batch whose images are mixed; None where they are not."""
    mixing = augment.mixing(num_classes)
    return MixingCollate(mixing) if mixing else None


class MixingCollate:
    """Collates samples, then mixes the batch.

    Args:
        mixing: transform from ``(images, targets)`` to ``(images, targets)``.
    """

    def __init__(self, mixing: v2.Transform) -> None:
        self.mixing = mixing

    def __call__(self, samples: list[Any]) -> tuple[Tensor, Tensor]:
        """Images, float32 (B, 3, H, W), and shares of the classes, float32 (B, classes)."""
        images, targets = self.mixing(*default_collate(samples))
        return images, targets


def _train_steps(
    crop: list[v2.Transform], mean: Sequence[float], augment: Augmentation
) -> list[v2.Transform]:
    steps = [*crop, v2.RandomHorizontalFlip()]
    if augment.randaugment:
        steps.append(v2.RandAugment(magnitude=augment.randaugment, fill=_mean_colour(mean)))
    return steps


def _mean_colour(mean: Sequence[float]) -> dict[type, list[int]]:
    return {tv_tensors.Image: [round(255 * channel) for channel in mean]}
