"""The Oxford-IIIT pets, by breed or by trimap."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch.utils.data import Subset
from torchvision.datasets import OxfordIIITPet

from razorlight.data.files import missing_data, require_below, require_pairs
from razorlight.data.held_out import Split, hold_out
from razorlight.data.label_coding import LabelCoding
from razorlight.data.public_set import PublicSet
from razorlight.data.samples import LabelledImages, PairedImages, Samples
from razorlight.data.segmentation import SegmentationData


class OxfordPets(PublicSet):
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, about 200 images each.

    3,680 images to train and validate, 3,669 to test; 800 MB to download. On disk::

        root/oxford-iiit-pet/images/<breed>_<number>.jpg
        root/oxford-iiit-pet/annotations/{trainval,test}.txt   <stem> <breed 1..37> <species> <id>

    Licence: CC BY-SA 4.0. Cite Parkhi et al., "Cats and Dogs", CVPR 2012.

    Args: see :class:`PublicSet`.

    Example:
        >>> data = OxfordPets("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 37
    source = OxfordIIITPet

    def read(self, part: Split) -> LabelledImages:
        """The images of a list, with their breeds."""
        entries = _entries(self.root, part)
        names = {breed: image.stem.rpartition("_")[0] for image, breed in entries}
        return LabelledImages(
            [(image, breed - 1) for image, breed in entries],
            [names[breed].replace("_", " ").title() for breed in sorted(names)],
        )


class OxfordPetTrimaps(SegmentationData):
    """Oxford-IIIT Pet as segmentation: the pet (0) and its background (1).

    Images, sizes, division, licence and citation as :class:`OxfordPets`, and beside them on disk::

        root/oxford-iiit-pet/annotations/trimaps/<stem>.png    1 pet, 2 background, 3 unclassified

    The third value, a band along the outline that the annotators left open, comes out as 255.

    Args:
        root: the folder that holds ``oxford-iiit-pet``.
        val_fraction: share of the training images held out for validation.
        split_seed: seed of that division.
        download: Whether to fetch the data (800 MB) if they are not there.
        **kwargs: see :class:`SegmentationData`.

    Example:
        >>> data = OxfordPetTrimaps("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    class_names = ("pet", "background")

    def __init__(
        self,
        root: str = "data",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.download = download

    def prepare_data(self) -> None:
        """Download the images and trimaps if that is wanted, and check that they are there.

        Raises:
            RazorError: if they are not.
        """
        with self._explained():
            OxfordIIITPet(self.root, target_types="segmentation", download=self.download)

    def samples(self, split: Split) -> Samples:
        """The images of a split and their trimaps."""
        with self._explained():
            entries = _entries(self.root, split)
        trimaps = self.root / "oxford-iiit-pet" / "annotations" / "trimaps"
        pairs = [(image, trimaps / f"{image.stem}.png") for image, _ in entries]
        require_pairs(pairs, OxfordPets.remedy)
        source = PairedImages(pairs, LabelCoding((1, 2), ignored=(3,)))
        if split == "test":
            return source
        return Subset(source, hold_out(len(source), split, self.val_fraction, self.split_seed))

    def _explained(self) -> AbstractContextManager[None]:
        return missing_data(type(self).__name__, self.root, OxfordPets.remedy)


def _entries(root: Path, split: Split) -> list[tuple[Path, int]]:
    """Images and their breeds, 1..37, that the list of a split names."""
    folder = root / "oxford-iiit-pet"
    part = "test" if split == "test" else "trainval"
    lines = (folder / "annotations" / f"{part}.txt").read_text().splitlines()
    fields = [line.split() for line in lines]
    return [
        (require_below(folder, folder / "images" / f"{stem}.jpg"), int(breed))
        for stem, breed, *_ in fields
    ]
