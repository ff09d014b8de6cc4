"""The progress bar of runs that count in steps."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from typing_extensions import override


def name_epochs_without_end(trainer: Trainer) -> None:
    """Let a trainer's bar say ``Epoch 3`` in place of ``Epoch 3/-2`` if no epoch is the last."""
    bar = trainer.progress_bar_callback
    if type(bar) is RichProgressBar and trainer.max_epochs == -1:
        bar.__class__ = _EndlessBar


class _EndlessBar(RichProgressBar):
    @override
    def _get_train_description(self, current_epoch: int) -> str:
        return super()._get_train_description(current_epoch).replace("/-2", "")
