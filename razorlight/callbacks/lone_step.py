"""A training step of a LightningModule by itself, beside the loop of its trainer."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from razorlight.errors import RazorError


def parts_of_run(trainer: Trainer, module: LightningModule) -> list[object]:
    """What a module may hold of its run, which a copy of the module has to share with it."""
    # what LightningCLI gives to make optimizers holds the whole command line, with the run
    factories = [value for value in vars(module).values() if isinstance(value, partial)]
    return [trainer, trainer.datamodule, *factories]  # type: ignore[attr-defined]


def log_nothing(module: LightningModule) -> None:
    """Let the module and its parts log nothing from now on."""
    for part in module.modules():
        if isinstance(part, LightningModule):
            vars(part).update(log=_ignore, log_dict=_ignore)


def record_nothing(module: LightningModule) -> None:
    """Let the module log nothing from now on, and its metrics of torchmetrics count nothing."""
    log_nothing(module)
    for part in module.modules():
        if isinstance(part, MetricCollection):
            vars(part).update(update=_ignore, forward=_no_scores)
        elif isinstance(part, Metric):
            vars(part).update(update=_ignore, forward=_no_score)


def run_training_step(module: LightningModule, batch: Any, batch_idx: int = 0) -> Tensor:
    """Run ``training_step``, and return its loss.

    Raises:
        RazorError: if it returns none.
    """
    takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    output: Any = module.training_step(*((batch, batch_idx) if takes_index else (batch,)))
    loss = output["loss"] if isinstance(output, Mapping) else output
    if loss is None:
        raise RazorError(
            f"training_step of {type(module).__name__} returned no loss for the first batch, so "
            "there is no step to look at; with MemoryProfiler set compare: false, and give "
            "BackRazor a recipe in place of a budget"
        )
    return loss


class Precision:
    """What a precision of Lightning does to a step.

    Args:
        name: such as ``bf16-mixed``, ``16-true`` or ``32``.

    Attributes:
        dtype: of parameters and batch, or of what autocast casts to.
        is_mixed: Whether autocast is on.

    Raises:
        RazorError: for another precision.
    """

    def __init__(self, name: str) -> None:
        bits, _, mode = name.partition("-")
        if bits not in _DTYPES:
            raise RazorError(
                f"precision {name} is unknown to an estimate; give 16, bf16, 32 or 64, each with "
                "-true or -mixed"
            )
        self.dtype = _DTYPES[bits]
        self.is_mixed = mode != "true" and bits in ("16", "bf16")

    def forward_context(self, device: str = "cpu") -> AbstractContextManager[Any]:
        """The context of forward on a type of device."""
        return torch.autocast(device, self.dtype, enabled=self.is_mixed)


_DTYPES = {
    "16": torch.float16,
    "bf16": torch.bfloat16,
    "32": torch.float32,
    "64": torch.float64,
}


def _ignore(*args: Any, **kwargs: Any) -> None: ...


def _no_score(*args: Any, **kwargs: Any) -> Tensor:
    return torch.zeros(())


def _no_scores(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
    return {}
