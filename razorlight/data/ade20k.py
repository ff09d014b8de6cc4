"""The scene parsing benchmark of ADE20K."""

from pathlib import Path
from typing import Any

from razorlight.data.base import RazorDataModule, Split, require_at_least
from razorlight.data.class_names import ADE20K_CLASSES
from razorlight.data.datasets import LabelCoding, MaskedImages, pair_by_stem
from razorlight.data.transforms import Pipelines, segmentation

_URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"


class ADE20K(RazorDataModule):
    """ADE20K in the form of the MIT Scene Parsing Benchmark: 150 classes of things and stuff.

    20,210 training and 2,000 validation images (used as ``val``; the test set has no public
    labels). On disk, as the zip unpacks::

        root/ADEChallengeData2016/images/{training,validation}/*.jpg
        root/ADEChallengeData2016/annotations/{training,validation}/*.png

    A mask holds 0 where nothing is labelled and 1..150 for the classes; they come out as 255 and
    0..149.

    Licence: annotations BSD 3-clause; images for non-commercial research and education only. Cite
    Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017.

    Args:
        root: the folder that holds ``ADEChallengeData2016``.
        image_size: side of the square crops, and of the padded images that are judged, in pixels.
        **kwargs: see :class:`RazorDataModule`.
    """

    class_names = ADE20K_CLASSES

    def __init__(self, root: str = "data", image_size: int = 512, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_at_least("image_size", image_size, 2)
        self.root = Path(root)
        self.image_size = image_size

    @property
    def splits(self) -> tuple[Split, ...]:
        """Training and validation; the test labels are not public."""
        return ("train", "val")

    def samples(self, split: Split) -> MaskedImages:
        """The images and masks of a split, by name."""
        base = self.root / "ADEChallengeData2016"
        folder = "training" if split == "train" else "validation"
        pairs = pair_by_stem(
            base / "images" / folder,
            base / "annotations" / folder,
            f"for ADE20K, unzip {_URL} in {self.root}",
        )
        return MaskedImages(pairs, LabelCoding(self.num_classes, first=1, ignored=0))

    def pipelines(self) -> Pipelines:
        """Scale jitter, crops and distortion to train, whole images to judge."""
        return segmentation(self.image_size, self.mean, self.std)
