"""One training step measured as the module is, and dense, on copies of the module."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from razorlight.callbacks.beside import callbacks_of
from razorlight.callbacks.lone_step import log_nothing, parts_of_run, run_training_step
from razorlight.callbacks.optimizer_in_backward import OptimizerInBackward
from razorlight.conversion import is_converted, restore_
from razorlight.errors import RazorError
from razorlight.memory.in_backward import free_gradient
from razorlight.memory.look import Peak
from razorlight.memory.peak import find_peak
from razorlight.memory.shortage import is_shortage
from razorlight.memory.step import StepMemory, measure_step


def obstacle(trainer: Trainer, pl_module: LightningModule) -> str | None:
    """Why no step can be run on a copy of the module; None if one can.

    Args:
        trainer: runs the fit.
        pl_module: the module that it fits.

    Returns:
        Words that follow "not compared", such as "under manual optimization".
    """
    if not pl_module.automatic_optimization:
        return "under manual optimization"
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
        return f"under {type(trainer.strategy).__name__}"
    if "training_step" in vars(pl_module):
        return "where training_step is set on the instance (by torch.compile): a copy shares it"
    if is_param_in_hook_signature(pl_module.training_step, "dataloader_iter", explicit=True):
        return "where training_step takes a dataloader_iter"
    return None


def compare_step(
    trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
) -> dict[str, StepMemory | None]:
    """Measure forward and backward of one batch, dense and, if the module is converted, razor.

    Both run on copies of the module, which stays as it is, and so do the random states. Beside an
    :class:`OptimizerInBackward` both free each gradient as soon as it is whole.

    Args:
        trainer: runs the fit; :func:`obstacle` found none.
        pl_module: the module, converted or not.
        batch: the batch, on the module's device.
        batch_idx: its number in the epoch.

    Returns:
        What was measured as "razor" and as "dense"; None for a step that ran out of memory.

    Raises:
        RazorError: if the module cannot be copied, or its step returns no loss.
    """
    with isolate_rng():
        measured: dict[str, StepMemory | None] = {}
        if is_converted(pl_module):
            measured["razor"] = _measure(trainer, pl_module, batch, batch_idx)
        measured["dense"] = _measure(trainer, pl_module, batch, batch_idx, dense=True)
    return measured


def _measure(
    trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dense: bool = False
) -> StepMemory | None:
    """Measure forward and backward on a copy of the module; None if memory does not suffice."""
    try:
        module, batch = _copy(trainer, pl_module, batch)
        module.trainer = trainer
        if dense:
            restore_(module)

        def step() -> Tensor:
            with trainer.precision_plugin.train_step_context():
                return run_training_step(module, batch, batch_idx)

        memory = measure_step(module, step, batch)
        return replace(memory, explained=_find_peak(module, step, batch))
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        return None


def _find_peak(module: LightningModule, step: Callable[[], Tensor], batch: Any) -> Peak | None:
    """What sets the peak; None on a GPU, and where two runs of a step are not alike."""
    try:
        return find_peak(module, step, batch) if module.device.type == "cpu" else None
    except RazorError:
        return None


def _copy(trainer: Trainer, pl_module: LightningModule, batch: Any) -> tuple[LightningModule, Any]:
    """Copies of module and batch; the module's logs nothing."""
    shared = {id(each): each for each in parts_of_run(trainer, pl_module)}
    try:
        module, batch = deepcopy((pl_module, batch), shared)
    except Exception as error:
        if is_shortage(error):
            raise
        raise RazorError(
            f"MemoryProfiler: {type(pl_module).__name__} cannot be copied to compare dense and "
            f"razor ({error}); set compare: false"
        ) from error
    log_nothing(module)
    if callbacks_of(trainer, OptimizerInBackward):
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(free_gradient)
    return module, batch
