"""Segmentation over two folders, images and masks."""

from pathlib import Path
from typing import Any

from razorlight.data.held_out import HeldOut, Split
from razorlight.data.imagery import FolderImagery
from razorlight.data.label_coding import LabelCoding
from razorlight.data.predict_folder import PredictFolder
from razorlight.data.raster_samples import PredictWindows, RasterWindows
from razorlight.data.raster_transforms import segmentation_of_bands
from razorlight.data.rasters import Rasters
from razorlight.data.samples import PairedImages
from razorlight.data.segmentation import SegmentationData
from razorlight.data.transforms import Pipelines
from razorlight.errors import RazorError


class SegmentationFolder(SegmentationData):
    """Images and masks paired by the stem of their names.

    On disk::

        root/images/{train,val}/<stem>.jpg    any format that PIL reads
        root/masks/{train,val}/<stem>.png     or .tif, indexed or grey: class ids 0..n-1, 255 to
                                              ignore
        root/{images,masks}/test              optional

    Without ``val``, a share of ``train`` is held out in its place. The files may then lie in
    ``root/images`` and ``root/masks`` themselves.

    GeoTIFFs and other TIFFs that are no pictures may have any number of bands, of whole numbers or
    floats (``pip install "razorlight[geo]"``). They are read by windows of ``image_size`` at the
    images' own scale, in training anywhere, and predicted as GeoTIFFs. Where pixels have no data,
    images have the mean, and masks are ignored. Three bands of 8 bits are normalised by ``mean``
    and ``std``. Other bands are normalised by their own mean and standard deviation over the
    training images, which checkpoints hold.

    Args:
        root: the folder that holds ``images`` and ``masks``.
        classes: the names of classes 0, 1, ...
        mask_suffix: what follows the stem of the image in the name of its mask: ``_mask`` for
            ``0001.jpg`` and ``0001_mask.png``.
        label_map: classes of numbers in the masks, such as ``{255: 1}`` for masks of black and
            white; 255 to ignore them. Other numbers stand for themselves.
        val_fraction: share of the images that is held out where there is no ``val``, in (0, 1);
            None to refuse such a folder.
        split_seed: seed of that division.
        val_fold: which of the shares is held out, from 0; those of all folds are the whole.
        bands: numbers of the bands to read, counted from 1 as GDAL does, such as ``[4, 3, 2]``;
            None for all. Given, every image is read by rasterio, pictures too.
        **kwargs: see :class:`SegmentationData`.

    Raises:
        RazorError: unless there are 1 to 255 classes, for a ``label_map`` to a class that there is
            not, or a fraction out of its range.

    Example:
        >>> data = SegmentationFolder(
        ...     "my_data", ["background", "roof"], image_size=64, batch_size=2, num_workers=0
        ... )
        >>> data.setup("fit")
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 64, 64]))
    """

    def __init__(
        self,
        root: str,
        classes: list[str],
        mask_suffix: str = "",
        label_map: dict[int, int] | None = None,
        val_fraction: float | None = 0.2,
        split_seed: int = 0,
        val_fold: int = 0,
        bands: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        if not 0 < len(classes) <= self.ignore_index:
            raise RazorError(f"{len(classes)} classes; name 1 to {self.ignore_index} of them")
        self.class_names = tuple(classes)
        self.mask_suffix = mask_suffix
        self.coding = LabelCoding(range(len(classes)), label_map=label_map or {})
        self.held_out = HeldOut(val_fraction, split_seed, val_fold)
        self.imagery = FolderImagery(self.imagery.given, self, self.folder / "images", bands)

    @property
    def splits(self) -> tuple[Split, ...]:
        """``test`` only where there is such a folder of masks."""
        has_test = (self.folder / "masks" / "test").is_dir()
        return ("train", "val", "test") if has_test else ("train", "val")

    @property
    def folder(self) -> Path:
        """The folder that holds ``images`` and ``masks``."""
        return self.root

    @property
    def remedy(self) -> str:
        """The way to get the data, for messages."""
        return (
            "SegmentationFolder reads root/{images,masks}/{train,val[,test]} or "
            "root/{images,masks}: set root"
        )

    def samples(self, split: Split) -> PairedImages | RasterWindows:
        """The images and masks of a split, by name; of rasters, windows."""
        suffix = self.mask_suffix
        pairs = self.held_out.pairs(
            self.folder, "masks", split, self.remedy, suffix, (".png", ".tif", ".tiff")
        )
        if not isinstance(self.images, Rasters):
            return PairedImages(pairs, self.coding)
        return RasterWindows(pairs, self.coding, self.images, self.side, split == "train")

    def pipelines(self) -> Pipelines:
        """Those of :class:`SegmentationData`; of rasters, windows are mirrored in training."""
        images = self.images
        if not isinstance(images, Rasters):
            return super().pipelines()
        return segmentation_of_bands(self.side, self.imagery.normalisation, images.are_colours)

    @property
    def eval_batch_size(self) -> int:
        """That of training for rasters, whose windows are alike."""
        of_rasters = isinstance(self.images, Rasters)
        return self.batch_size if of_rasters else super().eval_batch_size

    def to_predict(self, folder: PredictFolder) -> PredictFolder | PredictWindows:
        """One by one; rasters by windows that overlap."""
        is_raster = isinstance(folder.images, Rasters)
        return PredictWindows(folder, self.side) if is_raster else folder
