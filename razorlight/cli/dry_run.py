"""A run as its configuration describes it, without weights, and without data where it can be."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from razorlight._torch import FACTORIES, tree_leaves, tree_map
from razorlight.callbacks import BackRazor, OptimizerInBackward
from razorlight.callbacks.lone_step import Precision, record_nothing, run_training_step
from razorlight.cli.callback_keys import callbacks_of_run
from razorlight.cli.parsed_run import Options, ParsedRun
from razorlight.cli.warning_lines import plain_warnings, silence_others
from razorlight.data import RazorDataModule
from razorlight.errors import RazorError
from razorlight.memory.estimate import DEVICES
from razorlight.tasks import FineTuningTask, RegressionTask
from razorlight.tasks.networks import NONE

DEVICE: Options = {
    "--device": {
        "choices": DEVICES,
        "help": "estimate a step there (default: where `fit` would run)",
    },
}


class DryRun(ParsedRun):
    """The objects that ``fit`` would make, but for the trainer. Nothing is trained.

    Args:
        command: the command that needs them.
        args: its arguments, without its name.
        options: further options of the command, by name, each with its help.
        on_meta: Whether the module is on the device ``meta``, and batches have no values. If not,
            weights and data are read.

    Attributes:
        module: the module, in training mode.
        razor: the run's BackRazor; None if the run has none.
        in_backward: Whether the run's optimizer steps within backward.
        device: where steps are estimated, as of :class:`~razorlight.memory.StepEstimate`.
    """

    module: LightningModule

    def __init__(
        self,
        command: str,
        args: Sequence[str],
        options: Options,
        on_meta: bool = True,
    ) -> None:
        self._on_meta = on_meta
        super().__init__(command, args, options | DEVICE)
        if isinstance(self.model, RegressionTask) and not on_meta:
            self.model.standardise(self.datamodule)
        self._precision = Precision(str(self.settings["trainer"]["precision"] or "32-true"))
        self.module = self._cast((self.model.to("meta") if on_meta else self.model).train())
        record_nothing(self.module)
        callbacks = callbacks_of_run(self.settings, self.model)
        self.razor = next((c for c in callbacks if isinstance(c, BackRazor)), None)
        self.device: str = self.settings["device"] or self._device_of_run()
        self.in_backward = any(isinstance(c, OptimizerInBackward) for c in callbacks)

    @property
    def stage(self) -> str | None:
        """That of ``fit``, if data are read."""
        return None if self._on_meta else "fit"

    @property
    def obstacle_in_backward(self) -> str:
        """What the run does to gradients after backward; empty if its optimizer may step within."""
        trainer = self.settings["trainer"]
        by_norm = trainer["gradient_clip_algorithm"] != "value"
        if trainer["gradient_clip_val"] and by_norm:
            return "clipped by norm"
        if str(trainer["precision"]) in ("16", "16-mixed"):
            return "scaled"
        return "accumulated" if trainer["accumulate_grad_batches"] > 1 else ""

    @property
    def settings(self) -> Namespace:
        """The values of all options, objects made."""
        return self.config_init

    def before_instantiate_classes(self) -> None:
        """Let the module be made on the device ``meta``."""
        super().before_instantiate_classes()
        if self._on_meta:
            self.parser.add_instantiator(_make_on_meta, LightningModule, prepend=True)

    def batch(self) -> Any:
        """A training batch. Its values do not matter if the module is on the device ``meta``."""
        data = self.datamodule
        is_blank = self._on_meta and isinstance(data, RazorDataModule)
        batch = data.blank_batch() if is_blank else _first_batch(data)
        return tree_map(self._cast, batch)

    def _device_of_run(self) -> str:
        accelerator = self.settings["trainer"]["accelerator"]
        is_gpu = accelerator in ("gpu", "cuda")
        return "cuda" if is_gpu or (accelerator == "auto" and torch.cuda.is_available()) else "cpu"

    def _cast(self, part: Any) -> Any:
        """A module or tensor in the dtype of the run; the rest as it is."""
        is_module = isinstance(part, nn.Module)
        is_real = isinstance(part, Tensor) and part.is_floating_point()
        is_cast = not self._precision.is_mixed and (is_module or is_real)
        return part.to(self._precision.dtype) if is_cast else part

    def make_optimizer(self, module: nn.Module) -> Optimizer:
        """The optimizer of a copy of the module.

        Raises:
            RazorError: if it cannot be made without a trainer, or there are several.
        """
        if isinstance(module, FineTuningTask):
            return module.make_optimizer()
        assert isinstance(module, LightningModule)
        name = type(module).__name__
        try:
            chosen = module.configure_optimizers()
        except Exception as error:
            raise RazorError(
                f"{self.command}: configure_optimizers of {name} fails without a trainer ({error})"
            ) from error
        optimizers = [each for each in tree_leaves(chosen) if isinstance(each, Optimizer)]
        if len(optimizers) != 1:
            raise RazorError(
                f"{self.command}: configure_optimizers of {name} gives {len(optimizers)} "
                "optimizers; a step with one can be looked at"
            )
        return optimizers[0]

    def step(self, module: nn.Module, batch: Any) -> Tensor:
        """The loss of a training step, in the run's precision."""
        assert isinstance(module, LightningModule)
        device = "cuda" if module.device.type == "cuda" else "cpu"
        with self._precision.forward_context(device):
            return run_training_step(module, batch)


def _make_on_meta(kind: type[LightningModule], *args: Any, **kwargs: Any) -> LightningModule:
    if issubclass(kind, FineTuningTask) and "weights" in kwargs:
        kwargs["weights"] = NONE
    try:
        with _LargeOnMeta():
            return kind(*args, **kwargs)
    except RuntimeError:  # it reads values of large tensors
        return kind(*args, **kwargs)


class _LargeOnMeta(TorchFunctionMode):
    """Makes large tensors on the device ``meta``, and small ones, which networks read, as ever."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES and kwargs.get("device") is None:
            on_meta = func(*args, **{**kwargs, "device": "meta"})
            if on_meta.numel() > _LARGE:
                return on_meta
        return func(*args, **kwargs)


_LARGE = 2**12
"""Entries."""


def _first_batch(data: LightningDataModule) -> Any:
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    if not isinstance(loader, DataLoader):
        raise RazorError(f"{type(data).__name__}.train_dataloader gives no DataLoader")
    return next(iter(loader))


def run(command: Callable[[Sequence[str]], None], words: Sequence[str]) -> None:
    """Run one of the commands that train nothing.

    Args:
        command: runs it on its arguments.
        words: its name and its arguments.

    Raises:
        RazorError: as the command does.
    """
    silence_others(words[0])
    # its arguments are those of the process
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    with plain_warnings():
        command(words[1:])
