"""What is printed when a run starts, and when it ends."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich import get_console
from rich.table import Table
from torch.nn.parameter import is_lazy
from typing_extensions import override

from razorlight._torch import tree_leaves
from razorlight.callbacks.back_razor import BackRazor
from razorlight.callbacks.beside import callbacks_of
from razorlight.callbacks.last_checkpoint import LastCheckpoint
from razorlight.callbacks.memory_profiler import MemoryProfiler
from razorlight.callbacks.metrics_plot import read_metrics, save_metrics_plot
from razorlight.data.base import RazorDataModule
from razorlight.files import relative
from razorlight.memory.meter import MIB
from razorlight.memory.step import StepMemory

Row = tuple[str, str]


class RunSummary(Callback):
    """Prints on rank zero what a run consists of when it starts, and what it left when it ends.

    * At the first batch of fit: network and parameters, the samples of each split, recipe and
      converted layers, and the memory of one step, where :class:`MemoryProfiler` has measured it.
    * At the end of fit: ``metrics.png``, where a CSV logger wrote the metrics; the best score, the
      run's folder, and the commands that train on, test and predict, where the command line saved
      its configuration. At the end of anything else: the folder.

    In each hook this callback runs after all others, wherever it stands among them.

    Example:
        >>> from lightning import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> trainer = Trainer(max_steps=1, callbacks=[RunSummary()], enable_model_summary=False)
        >>> trainer.fit(BoringModel())
        model       BoringModel of Linear
        parameters  0.00 M, 0.00 M of them trained
        data        64 train, 64 val samples
        ...
    """

    def __init__(self) -> None:
        self._introduced = False
        self._folder = Path()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # every rank must ask for log_dir: at the end, or after Ctrl-C, this rank may be alone
        self._folder = relative(trainer.log_dir or trainer.default_root_dir)
        # last among callbacks: others measure and write in the hooks in which this one prints
        others = [each for each in callbacks_of(trainer, Callback) if each is not self]
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._introduced and trainer.is_global_zero:
            _print([*_model_rows(pl_module), *_data_rows(trainer), *_saving_rows(trainer)])
        self._introduced = True

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._introduced = False
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        fit = stage == TrainerFn.FITTING
        if fit:
            _draw_metrics(trainer, self._folder)
        _print([*(_best_rows(trainer) if fit else ()), *_file_rows(trainer, self._folder)])
        for command in self._next_commands(trainer) if fit else ():
            get_console().print(command, soft_wrap=True, highlight=False, markup=False)

    def resume_command(self, trainer: Trainer) -> str | None:
        """The command that goes on with a run; None if there is no checkpoint to go on from."""
        checkpoints = _checkpoints(trainer)
        saved = any(isinstance(c, LastCheckpoint) and c.path.is_file() for c in checkpoints)
        config = self._folder / "config.yaml"
        if not saved or not config.is_file():
            return None
        return f"razorlight fit --config {shlex.quote(str(config))} --ckpt_path last"

    def _next_commands(self, trainer: Trainer) -> Iterator[str]:
        if (resume := self.resume_command(trainer)) is None:
            return
        lengths = {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps}
        longer = [f"--trainer.{key} {2 * n}" for key, n in lengths.items() if n and n > 0]
        if longer:
            yield f"{resume} \\\n  {' '.join(longer)}"
        config = shlex.quote(str(self._folder / "config.yaml"))
        which = "best" if any(_best_rows(trainer)) else "last"
        for command in _commands_after(trainer):
            yield f"razorlight {command} --config {config} \\\n  --ckpt_path {which}"


def _commands_after(trainer: Trainer) -> Iterator[str]:
    """The commands that module and data know: ``test``, or else ``validate``, and ``predict``."""
    module = trainer.lightning_module
    data = trainer.datamodule or module  # type: ignore[attr-defined]

    def knows(step: str, loader: str) -> bool:
        return is_overridden(step, module) and is_overridden(loader, data)

    splits = data.splits if isinstance(data, RazorDataModule) else ("test",)
    if "test" in splits and knows("test_step", "test_dataloader"):
        yield "test"
    elif knows("validation_step", "val_dataloader"):
        yield "validate"
    if is_overridden("predict_dataloader", data):  # a module predicts by its forward
        yield "predict"


def _checkpoints(trainer: Trainer) -> list[ModelCheckpoint]:
    """The checkpoint callbacks. One that keeps the best comes first, if there is one."""
    return [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]


def _model_rows(module: LightningModule) -> Iterator[Row]:
    parameters = [p for p in module.parameters() if not is_lazy(p)]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    parts = [type(part).__name__ for part in module.children() if list(part.parameters())]
    yield "model", f"{type(module).__name__} of {', '.join(parts)}"
    yield "parameters", f"{total / 1e6:.2f} M, {trained / 1e6:.2f} M of them trained"


def _data_rows(trainer: Trainer) -> Iterator[Row]:
    splits = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}
    sizes = [f"{_samples(loaders)} {name}" for name, loaders in splits.items() if loaders]
    data = trainer.datamodule  # type: ignore[attr-defined]
    name = f"{type(data).__name__}: " if data else ""
    yield "data", f"{name}{', '.join(sizes)} samples"


def _samples(loaders: object) -> int | str:
    try:
        return sum(len(loader.dataset) for loader in tree_leaves(loaders))
    except (AttributeError, TypeError):
        return "an unknown number of"


def _saving_rows(trainer: Trainer) -> Iterator[Row]:
    for callback in callbacks_of(trainer, Callback):
        if isinstance(callback, BackRazor) and callback.plan:
            converted, known = len(callback.plan.only("converted")), len(callback.plan.lines)
            yield "recipe", f"{callback.recipe_name}: {converted} of {known} layers converted"
        if isinstance(callback, MemoryProfiler):
            for size, label in (("stored", "stored by a step"), ("peak", "peak of a step")):
                sizes = [f"{mode} {_mib(s, size)}" for mode, s in callback.compared.items()]
                if sizes:
                    yield label, f"{', '.join(sizes)} (measured)"


def _mib(step: StepMemory | None, size: str) -> str:
    return "out of memory" if step is None else f"{getattr(step, size) / MIB:.1f} MiB"


def _best_rows(trainer: Trainer) -> Iterator[Row]:
    for checkpoint in _checkpoints(trainer):
        if checkpoint.best_model_score is not None:
            name = Path(checkpoint.best_model_path).name
            yield f"best {checkpoint.monitor}", f"{checkpoint.best_model_score:.4g}, {name}"


def _draw_metrics(trainer: Trainer, folder: Path) -> None:
    """Draw the metrics that a CSV logger has written."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()
            if (file := folder / "metrics.csv").is_file():
                save_metrics_plot(read_metrics(file), folder / "metrics.png")


def _file_rows(trainer: Trainer, folder: Path) -> Iterator[Row]:
    if trainer.loggers and folder.is_dir():  # without a logger it is the working directory
        files = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
        yield "written", f"{folder}/"
        yield "", ", ".join(files)


def _print(rows: list[Row]) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    get_console().print(grid)  # the progress bar's, which prints above itself
