"""The Oxford-IIIT pets, by breed or by trimap."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Subset
from torchvision.datasets import OxfordIIITPet

from razorlight.data.base import RazorDataModule, Samples, Split, hold_out, require_at_least
from razorlight.data.class_names import PET_BREEDS
from razorlight.data.datasets import LabelCoding, LabelledImages, MaskedImages, missing_data
from razorlight.data.transforms import Pipelines, classification, segmentation


class OxfordPets(RazorDataModule):
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, about 200 images each, with trimaps.

    3,680 images to train and validate (divided at random, seeded) and 3,669 to test. On disk::

        root/oxford-iiit-pet/images/<stem>.jpg
        root/oxford-iiit-pet/annotations/{trainval,test}.txt   <stem> <breed 1..37> <species> <id>
        root/oxford-iiit-pet/annotations/trimaps/<stem>.png    1 pet, 2 background, 3 unclassified

    Targets are the breed (37 classes) or the trimap as two classes, pet 0 and background 1; its
    third value, a band along the outline that the annotators left open, comes out as 255.

    Licence: CC BY-SA 4.0. Cite Parkhi et al., "Cats and Dogs", CVPR 2012.

    Args:
        root: the folder that holds ``oxford-iiit-pet``.
        target: ``class`` for the breed, ``trimap`` for the mask.
        image_size: side of the square images, in pixels.
        val_fraction: share of the training images held out for validation.
        split_seed: of that division.
        download: fetch the data (800 MB) if they are not there.
        **kwargs: see :class:`RazorDataModule`.
    """

    def __init__(
        self,
        root: str = "data",
        target: Literal["class", "trimap"] = "class",
        image_size: int = 224,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_at_least("image_size", image_size, 2)
        self.root = Path(root)
        self.target = target
        self.class_names = PET_BREEDS if target == "class" else ("pet", "background")
        self.image_size = image_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.download = download

    def prepare_data(self) -> None:
        """Download the images and annotations where that is wanted, and check that they are there.

        Raises:
            RazorError: if they are not.
        """
        with self._explained():
            OxfordIIITPet(self.root, download=self.download)

    def samples(self, split: Split) -> Samples:
        """The images of a split with breed or trimap."""
        source = self._annotated("test" if split == "test" else "trainval")
        if split == "test":
            return source
        part = hold_out(len(source), split, self.val_fraction, self.split_seed)
        return Subset(source, part)

    def pipelines(self) -> Pipelines:
        """Those of classification or of segmentation, as the target asks."""
        recipe = classification if self.target == "class" else segmentation
        return recipe(self.image_size, self.mean, self.std)

    def _explained(self) -> AbstractContextManager[None]:
        remedy = "set root, or download: true on a machine online"
        return missing_data("OxfordPets", self.root, remedy)

    def _annotated(self, part: str) -> LabelledImages | MaskedImages:
        """The images that ``annotations/<part>.txt`` lists."""
        folder = self.root / "oxford-iiit-pet"
        annotations = folder / "annotations"
        with self._explained():
            lines = (annotations / f"{part}.txt").read_text().splitlines()
        images, breeds, trimaps = [], [], []
        for line in lines:
            stem, breed, *_ = line.split()
            images.append(folder / "images" / f"{stem}.jpg")
            breeds.append(int(breed) - 1)
            trimaps.append(annotations / "trimaps" / f"{stem}.png")
        if self.target == "class":
            return LabelledImages(list(zip(images, breeds, strict=True)))
        coding = LabelCoding(self.num_classes, first=1, ignored=3)
        return MaskedImages(list(zip(images, trimaps, strict=True)), coding)
