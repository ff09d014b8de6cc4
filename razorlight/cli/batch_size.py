"""``--data.batch_size auto``: the largest batch for which a GPU has memory."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import rank_zero_info

from razorlight.callbacks import BackRazor, OptimizerInBackward
from razorlight.callbacks.beside import callbacks_of
from razorlight.data import RazorDataModule
from razorlight.errors import RazorError

MARGIN = 0.1
"""The share by which the batch is smaller than the largest that had room."""


def find_batch_size(
    settings: dict[str, Any], trainer: Trainer, module: LightningModule, data: RazorDataModule
) -> None:
    """Give the data the largest batch that fits beside the module, by steps of a run of its own.

    Lightning's finder doubles the batch until the memory is short, and then searches between. The
    steps train by the run's BackRazor and OptimizerInBackward. Weights and random state stay.

    Args:
        settings: the arguments of the trainer.
        trainer: the one that will fit.
        module: the module.
        data: its data, whose ``batch_size`` is set.

    Raises:
        RazorError: on a CPU, in several processes, or with a budget of memory.
    """
    if isinstance(trainer.accelerator, CPUAccelerator):
        raise RazorError(
            "data.batch_size: auto fills the memory of a GPU, and this run is on a CPU; give a "
            "number (`razorlight estimate --memory 8GiB` says how many samples fit)"
        )
    if trainer.world_size > 1:
        raise RazorError(
            "data.batch_size: auto is for one process; find the size by `--trainer.devices 1`, and "
            "give it here"
        )
    beside = callbacks_of(trainer, BackRazor, OptimizerInBackward)
    with TemporaryDirectory() as folder:
        of_trial = {
            "callbacks": beside,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "default_root_dir": folder,
        }
        rank_zero_info("data.batch_size: looking for the largest batch that fits")
        with _quiet():
            trial = Trainer(**{**settings, **of_trial})
            Tuner(trial).scale_batch_size(
                module, datamodule=data, mode="binsearch", init_val=data.batch_size, margin=MARGIN
            )
    rank_zero_info(f"data.batch_size: {data.batch_size}, a tenth less than fits")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what trainer and callbacks say of trials, since the run says it again."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
