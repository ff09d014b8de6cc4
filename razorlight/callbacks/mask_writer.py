"""Predicted masks as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.functional import to_pil_image

from razorlight.errors import RazorError

VOID = (224, 224, 192)
"""Colour of pixels without a class, that of 255 in the PASCAL VOC palette."""

GUTTER = 4
"""Pixels between the panels of a picture."""


class MaskWriter(BasePredictionWriter):
    """Writes masks as PNG into ``masks/`` in the run's folder.

    * At each validation, over those of the one before: ``val_<n>.png``, the image beside its true
      and its predicted mask, for the first images.
    * For ``predict``: ``<n>.png``, the predicted mask of every image, indexed by class id, with
      ``n`` its place in the data set.

    The data module gives the colours (``palette``, one RGB triple per class) and the normalisation
    to undo (``mean`` and ``std``). The module's ``validation_step`` and ``predict_step`` must
    return class ids, integer (B, H, W).

    Args:
        count: pictures per validation.

    Raises:
        RazorError: if ``count`` is below 1; in a run, if data or module lack any of that.
    """

    def __init__(self, count: int = 4) -> None:
        super().__init__(write_interval="batch")
        if count < 1:
            raise RazorError(f"MaskWriter: count must be at least 1, got {count}")
        self.count = count
        self._written = 0
        self._folder = Path()
        self._palette = torch.empty(0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder and the colours."""
        super().setup(trainer, pl_module, stage)
        palette = getattr(_data(trainer), "palette", None)
        if palette is None:
            raise RazorError("MaskWriter: the data module has no palette; leave MaskWriter out")
        colours = [*palette, *[VOID] * (256 - len(palette))]
        self._palette = torch.tensor(colours, dtype=torch.uint8)
        self._folder = Path(trainer.log_dir or trainer.default_root_dir) / "masks"

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new set of pictures."""
        self._written = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write pictures, as long as there are fewer than ``count``."""
        missing = self.count - self._written
        if trainer.sanity_checking or not trainer.is_global_zero or missing <= 0:
            return
        images, truths = batch
        self._folder.mkdir(parents=True, exist_ok=True)
        samples = zip(images, truths, _class_ids(outputs), strict=True)
        for image, truth, predicted in list(samples)[:missing]:
            panels = [
                _denormalised(image, _data(trainer)),
                *map(self._coloured, (truth, predicted)),
            ]
            to_pil_image(_side_by_side(panels)).save(self._folder / f"val_{self._written}.png")
            self._written += 1

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
        """Write the masks of one batch; every process writes those of its own images."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for index, mask in zip(batch_indices or (), _class_ids(prediction), strict=True):
            picture = Image.fromarray(mask.to("cpu", torch.uint8).numpy())
            picture.putpalette(self._palette.flatten().tolist())
            picture.save(self._folder / f"{index:05}.png")

    def _coloured(self, mask: Tensor) -> Tensor:
        """Class ids (H, W) to uint8 (3, H, W)."""
        return self._palette[mask.cpu()].permute(2, 0, 1)


def _data(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)


def _class_ids(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim != 3 or outputs.is_floating_point():
        raise RazorError("MaskWriter: the module's steps must return class ids, integer (B, H, W)")
    return outputs


def _denormalised(image: Tensor, data: Any) -> Tensor:
    """Normalised float (3, H, W) to uint8."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (data.mean, data.std))
    return ((image.float().cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _side_by_side(panels: Sequence[Tensor]) -> Tensor:
    """Uint8 (3, H, W) each, with white between them."""
    spaced = [pad(panel, (0, GUTTER), value=255) for panel in panels[:-1]]
    return torch.cat([*spaced, panels[-1]], dim=2)
