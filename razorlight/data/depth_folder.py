"""Monocular depth over two folders, images and depth maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from razorlight.data.base import RazorDataModule
from razorlight.data.dense_transforms import Size, depth
from razorlight.data.held_out import HeldOut, Split
from razorlight.data.pictures import colour_depths
from razorlight.data.reading import open_image, read_numbers, readable
from razorlight.data.samples import PairedImages
from razorlight.data.segmentation import require_size
from razorlight.data.transforms import Pipelines
from razorlight.errors import RazorError


class DepthFolder(RazorDataModule):
    """Images and depth maps paired by the stem of their names, as NYUv2 and KITTI are given out.

    On disk::

        root/images/{train,val}/<stem>.jpg    any format that PIL reads
        root/depths/{train,val}/<stem>.png    16 bits, grey: metres times scale, 0 not measured
        root/{images,depths}/test             optional

    Without ``val``, a share of ``train`` is held out in its place. The files may then lie in
    ``root/images`` and ``root/depths`` themselves.

    Targets are depths in metres, float32 (B, H, W), 0 where nothing was measured or the image is
    padded. They are resized by nearest neighbours, so that no depth between two surfaces is made
    up, and augmentation keeps metres as they are (see
    :func:`razorlight.data.dense_transforms.depth`).

    Cite, where these are the data: NYUv2, Silberman et al., "Indoor Segmentation and Support
    Inference from RGBD Images", ECCV 2012; KITTI (CC BY-NC-SA 3.0), Uhrig et al., "Sparsity
    Invariant CNNs", 3DV 2017.

    Args:
        root: the folder that holds ``images`` and ``depths``.
        image_size: size of the resulting images in pixels: the side of a square, or height and
            width. Images are resized to fit and padded.
        scale: steps of the PNG per metre: 1000 for millimetres, 256 for KITTI.
        val_fraction: share of the images that is held out where there is no ``val``, in (0, 1);
            None to refuse such a folder.
        split_seed: seed of that division.
        val_fold: which of the shares is held out, from 0; those of all folds are the whole.
        **kwargs: see :class:`RazorDataModule`.

    Raises:
        RazorError: for a side below 2, a scale that is not above 0, or a fraction out of its range.

    Example:
        >>> data = DepthFolder("my_data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, depths = next(iter(data.train_dataloader()))
        >>> images.shape, depths.shape, depths.dtype
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]), torch.float32)
    """

    def __init__(
        self,
        root: str,
        image_size: Size = 384,
        scale: float = 1000.0,
        val_fraction: float | None = 0.2,
        split_seed: int = 0,
        val_fold: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_size(image_size)
        if not scale > 0:
            raise RazorError(f"scale is {scale}; it must be above 0 (steps per metre)")
        self.root = Path(root)
        self.image_size = image_size
        self.scale = scale
        self.held_out = HeldOut(val_fraction, split_seed, val_fold)

    @property
    def splits(self) -> tuple[Split, ...]:
        """``test`` only where there is such a folder of depths."""
        has_test = (self.root / "depths" / "test").is_dir()
        return ("train", "val", "test") if has_test else ("train", "val")

    def samples(self, split: Split) -> PairedImages:
        """The images and depths of a split, by name."""
        remedy = (
            "DepthFolder reads root/{images,depths}/{train,val[,test]} or root/{images,depths}: "
            "set root"
        )
        pairs = self.held_out.pairs(self.root, "depths", split, remedy)
        return PairedImages(pairs, DepthCoding(self.scale))

    def pipelines(self) -> Pipelines:
        """Shifts, flips and distortion in training; whole images in evaluation."""
        return depth(self.image_size, self.mean, self.std)

    def blank_sample(self) -> tuple[Tensor, Tensor]:
        """A black image, uint8, and depths of 0 metres, float32."""
        side = (256, 256)
        return self.images.blank(side), tv_tensors.Mask(torch.zeros(side))

    def show_target(self, target: Tensor) -> Tensor:
        """The depths in colours, red near to blue far."""
        return colour_depths(target)


@dataclass(frozen=True)
class DepthCoding:
    """How the numbers in a depth file stand for metres.

    Attributes:
        scale: steps per metre. A number of 0 stands for no measurement.
    """

    scale: float

    def read(self, path: Path) -> tv_tensors.Mask:
        """Read a grey 16-bit PNG to metres, float32 (H, W).

        Raises:
            RazorError: if the file cannot be read or has other than 16 bits a pixel.
        """
        with readable("depth", path), open_image(path) as image:
            mode = image.mode
        steps = read_numbers("depth", path)
        if not mode.startswith("I"):
            raise RazorError(
                f"depth {path} is of mode {mode}, with {steps.dtype.itemsize * 8} bits a channel; "
                "save it as a grey 16-bit PNG of distances, not as a picture of them"
            )
        return tv_tensors.Mask(torch.from_numpy(steps.astype(np.float32) / self.scale))
