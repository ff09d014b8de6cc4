"""Where a run can go on from."""

from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt`` as of the last epoch, or of the step that an exception or Ctrl-C ended.

    Beside a ``ModelCheckpoint`` that keeps the best: with ``save_last=True`` that one would write
    ``last.ckpt`` only after epochs that are among the best.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_exception=True, enable_version_counter=False)

    @property
    def path(self) -> Path:
        """The file, in the run's folder once that is set up."""
        return Path(self.dirpath or "") / "last.ckpt"
