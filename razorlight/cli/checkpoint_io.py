"""Checkpoints on disk that are whole whenever the run is killed, and that are read as data."""

from pathlib import Path
from typing import Any

import torch
from fsspec.implementations.local import LocalFileSystem
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from typing_extensions import override

from razorlight.checkpoints import read_checkpoint
from razorlight.errors import RazorError
from razorlight.files import replaced


def write_whole_checkpoints(trainer: Trainer) -> None:
    """Let a trainer write local checkpoints whole.

    A strategy with a way of its own to write checkpoints, such as sharded ones, keeps it.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpoints()


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, but a file on disk is whole or absent, and reading it runs nothing.

    Lightning writes a file to the system's temporary folder and moves it. To another file system
    that is a copy, which can be cut short. It also swallows the error of a file that it may not
    replace.
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
            except RuntimeError as error:  # torch raises its own while it handles the disk's
                raise error.__context__ or error from None

    @override
    def load_checkpoint(
        self,
        path: Any,
        # Lightning's own default, a function, is not accepted for subclasses of tensors, such as
        # the states of torchao's optimizers
        map_location: Any = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; ``weights_only=False`` trusts the file and runs the code in it.

        Raises:
            RazorError: if the file is missing, damaged, no checkpoint, or holds code.
        """
        if weights_only is False or not _is_local(path):
            return super().load_checkpoint(path, map_location, weights_only is not False)
        if not Path(path).is_file():
            raise RazorError(f"ckpt_path: there is no file {path}; give a checkpoint's, or `last`")
        content = read_checkpoint(path, "ckpt_path", map_location)
        if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
            raise RazorError(
                f"ckpt_path: {path} is no checkpoint of Lightning; if it holds weights alone, "
                "give it as --model.weights"
            )
        return content


def _is_local(path: Any) -> bool:
    return isinstance(get_filesystem(path), LocalFileSystem)
