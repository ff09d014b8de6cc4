"""Predictions as files, and validation as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from typing_extensions import override

from razorlight.callbacks.prediction_files import (
    append_classes,
    append_labels,
    append_numbers,
    at_own_size,
    save_depth,
    save_mask,
)
from razorlight.callbacks.raster_mask import RasterMask
from razorlight.data.base import RazorDataModule
from razorlight.data.pictures import (
    colour_depths,
    colour_labels,
    denormalise,
    overlay,
    side_by_side,
)
from razorlight.data.raster_samples import PredictWindows
from razorlight.errors import RazorError
from razorlight.logged_pictures import log_picture
from razorlight.protocols import (
    Coloured,
    Labelled,
    Measured,
    MultiLabelled,
    Normalised,
    Palette,
    output_names,
)

Kind = Literal["classes", "labels", "numbers", "masks", "depth"]
"""What a prediction is: probabilities of one class or of several, numbers, class ids, or metres."""

TABLES = {"classes": append_classes, "labels": append_labels, "numbers": append_numbers}
"""What writes the kinds of which an image has a line in a CSV."""


class PredictionWriter(BasePredictionWriter):
    """Writes predictions into ``predictions/`` in the run's folder, by shape, dtype and data.

    * Probabilities, float (B, classes): ``classes.csv``, a line for each image with its file, its
      class and that class's probability, and the next likeliest up to five. Of several processes
      each writes its own, ``classes_rank<n>.csv``. Where the data say that an image may have
      several classes, it is ``labels.csv``, with the classes of probability .5 or more and the
      probability of every class.
    * Numbers, float (B, targets), where the data say so: ``numbers.csv``, a line for each image.
    * Class ids, integer (B, H, W): ``masks/<name>.png``, indexed by class id, with the data's
      ``palette``; for files also ``overlays/<name>.jpg``, these colours over the photograph,
      which stays as it is where the class is called background.
    * Depth in metres, float (B, H, W): ``depth/<name>.png``, grey of 16 bits, in millimetres.

    * Class ids of windows of a GeoTIFF: ``masks/<name>.tif``, of the whole image and with its place
      on the earth, its colours as above, 255 where the image has no data.

    Where a :class:`razorlight.data.RazorDataModule` has a ``predict_folder``, names follow its
    files (see :class:`razorlight.data.predict_folder.PredictFolder`), and masks and depths have the
    size of the image. Elsewhere the name is the place in the data set (in a CSV the file, if there
    is one), and the size is that of the network's input.

    At each validation it also writes ``pictures/val_<n>.png``, over those of the validation before:
    image, truth and prediction of the first images, where these are masks or depths. TensorBoard,
    Weights & Biases and MLflow show them too, if they are loggers of the run.

    Args:
        count: pictures per validation; 0 for none.

    Raises:
        RazorError: if ``count`` is negative; in a run, if the module's steps return nothing of that
            kind, if masks are to be written and the data module has no ``palette``, or if pictures
            are to be written and it has no ``mean`` and ``std``.

    Example:
        >>> from pathlib import Path
        >>> from lightning import Trainer
        >>> from razorlight.data import SegmentationFolder
        >>> from razorlight.tasks import SegmentationTask
        >>> data = SegmentationFolder(
        ...     "my_data", ["background", "roof"], image_size=64, batch_size=2, num_workers=0
        ... )
        >>> trainer = Trainer(callbacks=[PredictionWriter()], barebones=True)
        >>> trainer.predict(SegmentationTask("Unet", "resnet18", 2), data, return_predictions=False)
        >>> sorted(path.name for path in Path("predictions/masks").iterdir())
        ['00000.png', '00001.png']
    """

    def __init__(self, count: int = 4) -> None:
        super().__init__(write_interval="batch")
        if count < 0:
            raise RazorError(f"PredictionWriter: count must be 0 or more, got {count}")
        self.count = count
        self._drawn = 0
        self._folder = Path()
        self._raster: RasterMask | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)  # asked by every rank

    # ---- predict

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        images = data.predict_images if isinstance(data, RazorDataModule) else None
        if isinstance(images, PredictWindows) and trainer.world_size > 1:
            raise RazorError(
                "PredictionWriter: one process writes a GeoTIFF; predict with --trainer.devices 1"
            )
        for kind in TABLES:
            self._table(trainer, kind).unlink(missing_ok=True)

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        data, indices = trainer.datamodule, batch_indices or ()  # type: ignore[attr-defined]
        kind, prediction = kind_of(prediction, data), prediction.cpu()
        is_ours = isinstance(data, RazorDataModule)
        images = data.predict_images if is_ours else None
        if isinstance(images, PredictWindows):
            self._write_windows(images, indices, prediction, batch[1].cpu(), _palette(data))
            return
        if kind in TABLES:
            files = [data.predicted(index) if is_ours else index for index in indices]
            names = output_names(data) or range(prediction.shape[1])
            TABLES[kind](self._table(trainer, kind), files, prediction, names)
            return
        for index, values, region in zip(indices, prediction, batch[1].cpu(), strict=True):
            if images is None:
                self._write(kind, f"{index:05}", values, data)
                continue
            name, photograph = images.names[index], images.images.read(images.files[index])
            values = at_own_size(values, region, photograph.shape[-2:])
            self._write(kind, name, values, data)
            if kind == "masks":
                names = data.class_names if isinstance(data, Labelled) else ()
                blended = overlay(photograph, values, _palette(data), names)
                to_pil_image(blended).save(self._path("overlays", f"{name}.jpg"), quality=90)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._raster:
            self._raster.close()
            self._raster = None
        rank_zero_info(f"PredictionWriter: {self._folder / 'predictions'}")

    def _write_windows(
        self,
        images: PredictWindows,
        indices: Sequence[int],
        prediction: Tensor,
        regions: Tensor,
        palette: Palette,
    ) -> None:
        """Write the cores of windows, which come image by image."""
        for index, labels, region in zip(indices, prediction, regions, strict=True):
            number, core = images.tiling[index]
            source = images.folder.files[number]
            if self._raster is None or self._raster.source != source:
                if self._raster:
                    self._raster.close()
                path = self._path("masks", f"{images.folder.names[number]}.tif")
                self._raster = RasterMask(path, source, images.tiling.step, palette)
            self._raster.write(core, labels, region)

    def _write(self, kind: Kind, name: str, values: Tensor, data: object) -> None:
        path = self._path(kind, f"{name}.png")
        if kind == "masks":
            save_mask(path, values, _palette(data))
        else:
            save_depth(path, values)

    def _table(self, trainer: Trainer, kind: str) -> Path:
        rank = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        return self._path(f"{kind}{rank}.csv")

    def _path(self, *parts: str) -> Path:
        """A place among the predictions; its folder is made."""
        path = self._folder.joinpath("predictions", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # ---- validation

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn = 0

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        missing = self.count - self._drawn
        if trainer.sanity_checking or not trainer.is_global_zero or missing <= 0:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if (kind := kind_of(outputs, data)) in TABLES:
            return
        folder = self._folder / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        for image, *maps in list(zip(*batch, outputs, strict=True))[:missing]:
            coloured = _coloured(kind, maps, data)
            picture = side_by_side([_photograph(image, data), *coloured])
            file = folder / f"val_{self._drawn}.png"
            to_pil_image(picture).save(file)
            log_picture(trainer, file)
            self._drawn += 1


def kind_of(prediction: object, data: object) -> Kind:
    """What a prediction is, by its shape and dtype, and by the targets of the data.

    Raises:
        RazorError: if the prediction is of none of the kinds.
    """
    of_images: Kind = "labels" if isinstance(data, MultiLabelled) else "classes"
    kinds: dict[tuple[int, bool], Kind] = {
        (2, True): "numbers" if isinstance(data, Measured) else of_images,
        (3, False): "masks",
        (3, True): "depth",
    }
    if isinstance(prediction, Tensor):
        kind = kinds.get((prediction.ndim, prediction.is_floating_point()))
        if kind:
            return kind
    raise RazorError(
        "PredictionWriter: the module's steps must return probabilities, float (B, classes), class "
        "ids, integer (B, H, W), or metres, float (B, H, W)"
    )


def _palette(data: object) -> Palette:
    if not isinstance(data, Coloured):
        raise RazorError(
            "PredictionWriter: the data module has no palette; leave PredictionWriter out"
        )
    return data.palette


def _coloured(kind: Kind, maps: Sequence[Tensor], data: object) -> list[Tensor]:
    """Truth and prediction in colours, those of depth on the scale of the truth."""
    if kind == "masks":
        return [colour_labels(labels, _palette(data)) for labels in maps]
    farthest = maps[0].max().item()
    return [colour_depths(depth, farthest) for depth in maps]


def _photograph(image: Tensor, data: object) -> Tensor:
    if isinstance(data, RazorDataModule):
        return data.imagery.picture(image)
    if not isinstance(data, Normalised):
        raise RazorError(
            "PredictionWriter: the data module has no mean and std, which turn its images back "
            "into pictures; give it these, or set count: 0"
        )
    return denormalise(image, data.mean, data.std)
