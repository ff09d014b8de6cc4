"""The checkpoint that a run goes on from."""

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from razorlight.callbacks.beside import callbacks_of
from razorlight.callbacks.optimizer_in_backward import OptimizerInBackward
from razorlight.errors import RazorError


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt``, the checkpoint from which a run goes on.

    The file is written after each epoch, after each validation within an epoch, and at the step in
    which an exception or a signal ends the run. Use this callback beside a ``ModelCheckpoint`` that
    keeps the best: with ``save_last=True`` a ``ModelCheckpoint`` writes ``last.ckpt`` only after an
    epoch that is among the best.

    The checkpoint of an epoch is first called ``next.ckpt``. It becomes ``last.ckpt`` once
    Lightning has logged the epoch. A run that is killed in between resumes before that epoch, so
    no epoch is missing from its logs. Parameters that are not finite are never saved, and neither
    are those that an exception left half stepped (:class:`OptimizerInBackward`).

    Raises:
        RazorError: in a run, at the end of an epoch that left a parameter infinite or NaN.

    Example:
        >>> from pathlib import Path
        >>> from lightning import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> last = LastCheckpoint()
        >>> trainer = Trainer(
        ...     max_steps=1,
        ...     callbacks=[last],
        ...     enable_progress_bar=False,
        ...     enable_model_summary=False,
        ... )
        >>> trainer.fit(BoringModel())
        >>> last.path.name, last.path.is_file()
        ('last.ckpt', True)
    """

    def __init__(self) -> None:
        super().__init__(filename="last")
        self._written = False  # Whether there is a next.ckpt that is not last.ckpt yet

    @property
    def path(self) -> Path:
        """The file. It is in the run's folder once the run is set up."""
        return Path(self.dirpath or "") / "last.ckpt"

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if name := _not_finite(trainer, pl_module):
            raise RazorError(
                f"{name} is not finite after epoch {trainer.current_epoch}, and was not saved; "
                "lower the learning rate or take another precision, and go on from the epoch before"
            )
        self._written = self._write(trainer, "next.ckpt")

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._make_last(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._make_last(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # after the last batch on_train_epoch_end writes the checkpoint
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.on_exception(trainer, pl_module)

    @override
    def on_train_batch_end(self, *args: Any) -> None: ...

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException | None = None
    ) -> None:
        # an epoch that just ended is not logged in full, and a resumed run would not log it either
        epochs: Any = trainer.fit_loop.epoch_progress.current
        if epochs.processed != epochs.completed or _is_within_step(trainer):
            return
        if self._written:  # SIGTERM came between two epochs
            self._make_last(trainer)
        elif not _not_finite(trainer, pl_module):
            self._write(trainer, "last.ckpt")

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # the folder of a run may have been moved: its best checkpoints are beside this one
        folder = Path(str(trainer.ckpt_path)).absolute().parent
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if not isinstance(callback, ModelCheckpoint) or not state or not callback.dirpath:
                continue
            if Path(callback.dirpath).absolute() == folder:
                _move(state, str(callback.dirpath))

    def _write(self, trainer: Trainer, name: str) -> bool:
        """Write a checkpoint, unless one of this step exists or the run is a trial."""
        if self._should_skip_saving_checkpoint(trainer):
            return False
        self._save_checkpoint(trainer, str(self.path.with_name(name)))
        self.best_model_path = str(self.path)
        return True

    def _make_last(self, trainer: Trainer) -> None:
        if self._written and trainer.is_global_zero:
            files = get_filesystem(str(self.path))
            if files.isdir(str(self.path)):  # a sharded one
                files.rm(str(self.path), recursive=True)
            files.mv(str(self.path.with_name("next.ckpt")), str(self.path), recursive=True)
        self._written = False


def _is_within_step(trainer: Trainer) -> bool:
    """Whether some parameters are stepped, and others are not yet."""
    return any(c.is_within_step for c in callbacks_of(trainer, OptimizerInBackward))


def _move(state: dict[str, Any], folder: str) -> None:
    """Let the state of a ``ModelCheckpoint`` name the files of its folder in ``folder``."""

    def moved(path: str) -> str:
        return str(Path(folder, Path(path).name)) if path and Path(path).parent == old else path

    old, state["dirpath"] = Path(state["dirpath"]), folder
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}


def _not_finite(trainer: Trainer, pl_module: LightningModule) -> str:
    """The name of a parameter with infinite or NaN entries on any rank; empty if there is none."""
    names = [name for name, p in pl_module.named_parameters() if not p.isfinite().all()]
    finite = trainer.strategy.reduce_boolean_decision(not names, all=True)
    return "" if finite else next(iter(names), "a parameter")
