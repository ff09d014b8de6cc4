"""Pictures of a run in its loggers: TensorBoard, Weights & Biases and MLflow show them too."""

from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image


def log_picture(trainer: Trainer, picture: Path) -> None:
    """Give a picture to the loggers of a run that show pictures, by the stem of its name.

    MLflow keeps the newest of a name, the others one for each step. Only the first process logs.

    Args:
        trainer: runs the module.
        picture: a PNG in the run's folder, where it stays.
    """
    if not trainer.is_global_zero:
        return
    name, step = picture.stem, trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(Image.open(picture).convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [str(picture)], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(picture), "pictures")
