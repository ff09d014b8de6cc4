"""What a run of the command line writes, such that whatever kills it leaves every file whole."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fsspec.implementations.local import LocalFileSystem
from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from typing_extensions import override

from razorlight.checkpoints import read_checkpoint
from razorlight.errors import RazorError
from razorlight.files import drop_torn_line, replaced


def make_durable(trainer: Trainer) -> None:
    """Let a trainer write local checkpoints and CSV files whole, and go on with such files.

    What is not Lightning's default (sharded checkpoints, other loggers) is left as it is.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpoints()
    for logger in trainer.loggers:
        if type(logger) is CSVLogger:
            logger.__class__ = WholeCSVLogger


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's, but a file on disk is whole, or not there, and what is read is never run.

    Lightning writes it to the system's temporary folder and moves it: on another file system that
    is a copy, which can be cut short. And it swallows the error of a file that it may not replace.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        if not _is_local(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        with replaced(Path(path)) as new, new.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's own, while it handles that of the disk
                raise error.__context__ or error from None

    @override
    def load_checkpoint(
        self,
        path: Any,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """As Lightning's; ``weights_only=False`` trusts a file, and runs what it says.

        Raises:
            RazorError: if it is missing, damaged, no checkpoint, or holds code.
        """
        if weights_only is False or not _is_local(path):
            return super().load_checkpoint(path, map_location, weights_only is not False)
        if not Path(path).is_file():
            raise RazorError(f"ckpt_path: there is no file {path}; give a checkpoint's, or `last`")
        content = read_checkpoint(path, "ckpt_path", map_location)
        if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
            raise RazorError(
                f"ckpt_path: {path} is no checkpoint of Lightning; weights alone are given to the "
                "model, as --model.weights"
            )
        return content


class WholeCSVLogger(CSVLogger):
    """Lightning's, but it goes on with the metrics.csv that it finds, and never leaves half of it.

    Rows of steps that a resumed run does again stand there twice.
    """

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:
        """The writer; made, with its folder, when first asked for."""
        if self._experiment is None:
            self._experiment = _MetricsFile(self.log_dir)
        return self._experiment


class _MetricsFile(ExperimentWriter):
    @override
    def _check_log_dir_exists(self) -> None:
        """Take up the columns of a file that is there."""
        path = Path(self.metrics_file_path)
        if path.is_file():
            drop_torn_line(path)
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    @override
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with replaced(path) as new, new.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(rows)


class WholeConfig(SaveConfigCallback):
    """Lightning's, but a config.yaml that is there is replaced as a whole."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir  # asked by every rank
        if trainer.is_global_zero and not self.already_saved:
            with replaced(Path(folder or "") / self.config_filename) as new:
                new.write_text(self.parser.dump(self.config, skip_none=False))
        self.already_saved = True


def _is_local(path: Any) -> bool:
    return isinstance(get_filesystem(path), LocalFileSystem)
