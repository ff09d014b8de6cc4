"""Where a run can go on from."""

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from razorlight.errors import RazorError


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt`` as of the last epoch, or of the step that an exception or a signal ended.

    Also as of each validation within an epoch. It stands beside a ``ModelCheckpoint`` that keeps
    the best: with ``save_last=True`` that one would write ``last.ckpt`` only after epochs that are
    among the best.

    An epoch's is written to ``next.ckpt`` when the epoch ends, and becomes ``last.ckpt`` when
    Lightning has logged what it logs after that: killed in between, a run resumes before that
    epoch, and none is missing from its logs. Parameters that are not finite are never saved.

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
        self._written = False  # next.ckpt, and is not yet last.ckpt

    @property
    def path(self) -> Path:
        """The file, in the run's folder once that is set up."""
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
        # at the end of an epoch more is to come
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.on_exception(trainer, pl_module)

    @override
    def on_train_batch_end(self, *args: Any) -> None: ...

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException | None = None
    ) -> None:
        # of an epoch that is at its end not all is logged yet, and a resumed run would not log it
        epochs: Any = trainer.fit_loop.epoch_progress.current
        if epochs.processed != epochs.completed:
            return
        if self._written:  # SIGTERM, heard between two epochs
            self._make_last(trainer)
        elif not _not_finite(trainer, pl_module):
            self._write(trainer, "last.ckpt")

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # a run that goes on in its own folder finds its best there, wherever that was before
        folder = Path(str(trainer.ckpt_path)).absolute().parent
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            dirpath = getattr(callback, "dirpath", None)
            if state and dirpath and Path(dirpath).absolute() == folder:
                _move(state, dirpath)

    def _write(self, trainer: Trainer, name: str) -> bool:
        """Write a checkpoint, unless this step's has been, or the run is a trial."""
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


def _move(state: dict[str, Any], folder: str) -> None:
    """Let the state of a ``ModelCheckpoint`` speak of the files of its folder in ``folder``."""

    def moved(path: str) -> str:
        return str(Path(folder, Path(path).name)) if path and Path(path).parent == old else path

    old, state["dirpath"] = Path(state["dirpath"]), folder
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}


def _not_finite(trainer: Trainer, pl_module: LightningModule) -> str:
    """The name of a parameter that holds what is not finite, or nothing; on any rank."""
    names = [name for name, p in pl_module.named_parameters() if not p.isfinite().all()]
    finite = trainer.strategy.reduce_boolean_decision(not names, all=True)
    return "" if finite else next(iter(names), "a parameter")
