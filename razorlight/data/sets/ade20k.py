"""The scene parsing benchmark of ADE20K."""

from razorlight.data.files import pair_by_stem
from razorlight.data.held_out import Split
from razorlight.data.label_coding import LabelCoding
from razorlight.data.samples import PairedImages
from razorlight.data.segmentation import SegmentationData
from razorlight.data.sets.class_names import ADE20K_CLASSES

_URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"


class ADE20K(SegmentationData):
    """ADE20K in the form of the MIT Scene Parsing Benchmark: 150 classes of things and stuff.

    20,210 training and 2,000 validation images (used as ``val``; the test set has no public
    labels). On disk, as the zip unpacks::

        root/ADEChallengeData2016/images/{training,validation}/*.jpg
        root/ADEChallengeData2016/annotations/{training,validation}/*.png

    A mask holds 0 where nothing is labelled and 1..150 for the classes; they come out as 255 and
    0..149.

    Licence: annotations BSD 3-clause; images for non-commercial research and education only. Cite
    Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017.

    Arguments are those of :class:`SegmentationData`.

    Example:
        >>> data = ADE20K("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    class_names = ADE20K_CLASSES

    @property
    def splits(self) -> tuple[Split, ...]:
        """Training and validation; the test labels are not public."""
        return ("train", "val")

    def samples(self, split: Split) -> PairedImages:
        """The images and masks of a split, by name."""
        base = self.root / "ADEChallengeData2016"
        folder = "training" if split == "train" else "validation"
        pairs = pair_by_stem(
            base / "images" / folder,
            base / "annotations" / folder,
            f"for ADE20K, unzip {_URL} in {self.root}",
        )
        return PairedImages(pairs, LabelCoding(range(1, 151), ignored=(0,)))
