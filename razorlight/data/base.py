"""What all data modules share: splits, loaders, and the division of a training set."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision.transforms import v2

from razorlight.data.held_out import Split
from razorlight.data.image_readers import ImageReader
from razorlight.data.imagery import Imagery
from razorlight.data.normalisation import Normalisation
from razorlight.data.pictures import colours_of, overlay
from razorlight.data.plotting import draw_samples
from razorlight.data.predict_folder import PredictFolder
from razorlight.data.quick_look import look_at_some, warn_of_unseen_classes
from razorlight.data.raster_samples import PredictWindows
from razorlight.data.samples import Samples
from razorlight.data.targets import count_labels, files_of
from razorlight.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Channels,
    Pipelines,
)
from razorlight.errors import RazorError
from razorlight.protocols import Coloured, Labelled, Measured


class RazorDataModule(LightningDataModule, ABC):
    """A data set with its splits, augmentation and loaders.

    A subclass says how to find the samples of a split (:meth:`samples`) and what to do to them
    (:meth:`pipelines`). Batches are ``(images, targets)``: images float32 (B, 3, H, W), normalised;
    targets one number per image (B,), several (B, targets), or one per pixel (B, H, W). Images in
    folders of one's own may have any number of bands.

    Args:
        batch_size: samples per batch and process. ``auto`` lets ``razorlight fit`` find the largest
            batch that fits into the memory of a GPU; other commands take 16.
        num_workers: loader processes; 0 loads in the training process.
        mean: mean of each channel that the normalisation subtracts, for values in 0..1; the
            encoder's own.
        std: standard deviation of each channel, likewise.
        predict_folder: folder of any images, at any depth, that ``predict`` takes in place of a
            split. It takes one image at a time, since their sizes may differ.

    Raises:
        RazorError: for a batch size below 1 or a negative number of workers.

    Example:
        >>> import torch
        >>> from razorlight.data.transforms import Pipelines, pipeline
        >>> class Noise(RazorDataModule):
        ...     def samples(self, split):
        ...         return [(torch.zeros(3, 8, 8, dtype=torch.uint8), 0)] * 4
        ...
        ...     def pipelines(self):
        ...         return Pipelines(*[pipeline([], self.mean, self.std)] * 2)
        ...
        ...     def show_target(self, target):
        ...         return str(target)
        >>> data = Noise(batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, targets = next(iter(data.train_dataloader()))
        >>> images.shape, targets
        (torch.Size([2, 3, 8, 8]), tensor([0, 0]))
    """

    def __init__(
        self,
        batch_size: int | Literal["auto"] = 16,
        num_workers: int = 2,
        mean: Channels = IMAGENET_MEAN,
        std: Channels = IMAGENET_STD,
        predict_folder: str | None = None,
    ) -> None:
        super().__init__()
        self.is_batch_size_auto = batch_size == "auto"
        self.batch_size = 16 if batch_size == "auto" else batch_size
        require_at_least("batch_size", self.batch_size, 1)
        require_at_least("num_workers", num_workers, 0)
        self.num_workers = num_workers
        self.imagery = Imagery(Normalisation(mean, std))
        self.predict_folder = predict_folder
        self._samples: dict[Split, Samples] = {}

    @abstractmethod
    def samples(self, split: Split) -> Samples:
        """The samples ``(image, target)`` of a split, untransformed; reads the disk.

        Raises:
            RazorError: if the data are missing.
        """

    @abstractmethod
    def pipelines(self) -> Pipelines:
        """The transforms of training and of evaluation."""

    def blank_sample(self) -> tuple[Any, Any]:
        """A sample of the kind that :meth:`samples` gives, whose values do not matter.

        Here it is the first training sample. Subclasses that need no data for it override this.

        Raises:
            RazorError: if the data are missing.
        """
        sample: tuple[Any, Any] = self.samples("train")[0]
        return sample

    def blank_batch(self) -> Any:
        """A training batch whose values do not matter: an estimate reads its shapes."""
        sample = self.pipelines().train(*self.blank_sample())
        collate = self.train_collate() or default_collate
        return collate([sample] * self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """What a network must know of its data. Checkpoints hold it, and ``export`` reads it."""
        facts = self.imagery.facts()
        if isinstance(self, Labelled):
            facts["class_names"] = [*self.class_names]
        if isinstance(self, Measured):
            facts["target_names"] = [*self.target_names]
        size = getattr(self, "image_size", getattr(self, "tile_size", None))
        return facts if size is None else facts | {"image_size": size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take from a checkpoint what the configuration does not say of the images.

        Raises:
            RazorError: if the network was trained on images of another kind.
        """
        self.imagery.take(state_dict)

    @property
    def images(self) -> ImageReader:
        """The reader of the images."""
        return self.imagery.reader

    @property
    def num_bands(self) -> int:
        """How many channels the images have."""
        return self.images.num_bands

    @property
    def mean(self) -> Sequence[float]:
        """What is subtracted from each channel, of values in 0..1 where images are of 8 bits."""
        return self.imagery.normalisation.mean

    @property
    def std(self) -> Sequence[float]:
        """What each channel is divided by after that."""
        return self.imagery.normalisation.std

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have labels."""
        return ("train", "val", "test")

    @property
    def eval_batch_size(self) -> int:
        """Samples per batch and process in validation, test and prediction."""
        return self.batch_size

    def plot(self, batch: tuple[Tensor, Tensor], count: int = 8) -> Figure:
        """Draw the first images of a batch, each with its target.

        The target is a caption, or a picture beside the image. Masks lie over
        their images, and the colours of the classes are named.

        Args:
            batch: ``(images, targets)``, as the loaders give it.
            count: images at most.

        Example:
            >>> from razorlight.data import BlueMarble
            >>> data = BlueMarble(batch_size=8)
            >>> data.setup("fit")
            >>> data.plot(next(iter(data.train_dataloader()))).savefig("batch.png")
        """
        images, targets = (part[:count] for part in batch)
        pictures = [self.imagery.picture(image) for image in images]
        if not isinstance(self, Coloured) or targets.ndim != 3:
            return draw_samples(pictures, [self.show_target(target) for target in targets])
        names = self.class_names if isinstance(self, Labelled) else ()
        pairs = zip(pictures, targets, strict=True)
        overlays = [overlay(picture, labels, self.palette, names) for picture, labels in pairs]
        return draw_samples(pictures, overlays, colours_of(targets, self.palette, names))

    @abstractmethod
    def show_target(self, target: Tensor) -> str | Tensor:
        """What :meth:`plot` shows of a target: words, or a picture, uint8 (3, H, W)."""

    def setup(self, stage: str) -> None:
        """Index the samples that a stage needs; before training, look at some of them.

        A file that cannot be used is refused, and a warning names classes that training never sees.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            RazorError: if the data are missing or cannot be used, or the data set lacks the split.
        """
        needed: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": () if self.predict_folder else (self._predict_split,),
        }
        new = [split for split in needed[stage] if split not in self._samples]
        self._samples |= {split: self._find_split(split) for split in new}
        if stage == "fit":
            self._look_quickly(new)

    @rank_zero_only
    def _look_quickly(self, splits: Sequence[Split]) -> None:
        for split in splits:
            samples = self._samples[split]
            found = look_at_some(samples)
            if split == "train" and isinstance(self, Labelled):
                warn_of_unseen_classes(type(self).__name__, samples, found, self.class_names)

    def find(self, stage: str) -> None:
        """Find the data of a stage now, so that a run says at once if they are missing.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            RazorError: as :meth:`setup` and :meth:`predict_dataloader` do.
        """
        self.prepare_data()
        self.setup(stage)
        if stage == "predict":
            _ = self.predict_images

    def label_counts(self) -> Counter[int]:
        """The training images of each class, or the pixels of each label in the training masks.

        Masks are read, by ``num_workers`` processes; images only where classes need it.

        Raises:
            RazorError: if the data are missing or cannot be used.
        """
        held = self._samples.get("train")
        return count_labels(held or self.samples("train"), self.num_workers)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, augmented; an incomplete last batch is left out, unless it is the only one."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """In order, without augmentation."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """In order, without augmentation."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The images of ``predict_folder``; without one the test split, or else validation.

        Raises:
            RazorError: if there is no such folder, or no image in it.
        """
        if self.predict_images is None:
            return self._loader(self._predict_split)
        images = _Transformed(self.predict_images, self.pipelines().eval)
        are_alike = isinstance(self.predict_images, PredictWindows)
        size = self.eval_batch_size if are_alike else 1
        return DataLoader(images, batch_size=size, num_workers=self.num_workers)

    @cached_property
    def predict_images(self) -> PredictFolder | PredictWindows | None:
        """The images of ``predict_folder``, each with the mask of that class as its target."""
        if not self.predict_folder:
            return None
        folder = Path(self.predict_folder)
        return self.to_predict(PredictFolder(folder, self.imagery.reader_to_predict(folder)))

    def to_predict(self, folder: PredictFolder) -> PredictFolder | PredictWindows:
        """How the images of a folder are taken: here one by one, whole."""
        return folder

    def predicted(self, index: int) -> Path | int:
        """What a table of predictions calls an image: its file, or its place in the split.

        Args:
            index: place of the image among those that ``predict`` takes.
        """
        if isinstance(self.predict_images, PredictFolder):
            return self.predict_images.files[index]
        files = files_of(self._samples[self._predict_split], index)
        return files[0] if files else index

    def train_sampler(self, samples: Samples) -> Sampler[int] | None:
        """What draws the training samples; None to take each once, in random order."""
        return None

    def train_collate(self) -> Callable[[list[Any]], Any] | None:
        """The function that collates samples to a training batch; None for torch's own."""
        return None

    @property
    def _predict_split(self) -> Split:
        return "test" if "test" in self.splits else "val"

    def _find_split(self, split: Split) -> Samples:
        if split not in self.splits:
            raise RazorError(
                f"{type(self).__name__} has no {split} split, only {', '.join(self.splits)}; "
                "use `validate` in place of `test`"
            )
        return self.samples(split)

    def _loader(self, split: Split) -> DataLoader[Any]:
        train = split == "train"
        # a checkpoint that is loaded after setup may say mean and std
        pipelines = self.pipelines()
        samples, transform = self._samples[split], pipelines.train if train else pipelines.eval
        dataset = _Transformed(samples, transform)
        sampler = self.train_sampler(samples) if train else None
        return DataLoader(
            dataset,
            batch_size=self.batch_size if train else self.eval_batch_size,
            shuffle=train and sampler is None,
            sampler=sampler,
            drop_last=train and len(dataset) > self.batch_size,
            num_workers=self.num_workers,
            collate_fn=self.train_collate() if train else None,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )


class _Transformed(Dataset[Any]):
    """Samples of ``source``, each passed whole through ``transform``."""

    def __init__(self, source: Samples, transform: v2.Transform) -> None:
        self.source = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.transform(*self.source[index])


def require_at_least(name: str, value: int, minimum: int) -> None:
    """Refuse a value below ``minimum``.

    Raises:
        RazorError: naming the argument.
    """
    if value < minimum:
        raise RazorError(f"{name} is {value}; it must be {minimum} or more")
