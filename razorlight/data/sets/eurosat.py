"""EuroSAT."""

from pathlib import Path
from typing import Any

from torchvision import datasets

from razorlight.data.augmentation import small_images
from razorlight.data.files import images_below, subfolders
from razorlight.data.held_out import Split, hold_out
from razorlight.data.public_set import PublicSet
from razorlight.data.samples import LabelledImages, LabelledSamples
from razorlight.data.transforms import Pipelines


class _OwnFolders(datasets.EuroSAT):
    """Torchvision's, without the folders and files that tools leave behind."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = subfolders(Path(directory))
        return names, {name: label for label, name in enumerate(names)}

    @staticmethod
    def make_dataset(
        directory: str | Path, class_to_idx: dict[str, int], *args: Any, **kwargs: Any
    ) -> list[tuple[str, int]]:
        return [
            (str(path), label)
            for name, label in class_to_idx.items()
            for path in images_below(Path(directory) / name)
        ]


class EuroSAT(PublicSet):
    """EuroSAT: 10 kinds of land use in 27,000 images of Sentinel-2, RGB, 64x64 pixels of 10 m.

    There is no official division: a fifth, always the same at random, is to test, the rest is to
    train and validate. 90 MB to download. On disk::

        root/eurosat/2750/<class>/<class>_<id>.jpg

    Licence: MIT; the imagery under the Copernicus Sentinel terms. Cite Helber et al., "EuroSAT: A
    Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover Classification", JSTARS
    2019.

    Args:
        root: folder that holds the data set's own folder.
        image_size: side of the resized images, in pixels.
        **kwargs: see :class:`PublicSet`.

    Example:
        >>> data = EuroSAT("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 10
    source = _OwnFolders

    def __init__(self, root: str = "data", image_size: int = 64, **kwargs: Any) -> None:
        super().__init__(root, image_size, **kwargs)

    def read(self, part: Split) -> LabelledSamples:
        """The images of a part, by class."""
        source = self.source(self.root)
        # the split seed divides train and val alone: all runs are judged by the same images
        chosen = hold_out(len(source), "val" if part == "test" else "train", 0.2, seed=0)
        samples = [source.samples[index] for index in sorted(chosen)]
        return LabelledImages([(Path(path), label) for path, label in samples], source.classes)

    def pipelines(self) -> Pipelines:
        """Shifts and flips in training, whole images in evaluation."""
        return small_images(64, self.image_size, self.mean, self.std, self.augment)
