"""A plan within a memory budget, made for the first batch of a run."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from razorlight.callbacks.beside import callbacks_of
from razorlight.callbacks.lone_step import (
    Precision,
    parts_of_run,
    record_nothing,
    run_training_step,
)
from razorlight.callbacks.optimizer_in_backward import OptimizerInBackward
from razorlight.errors import RazorError
from razorlight.memory.budget import PlanWithin, plan_within
from razorlight.memory.estimate import copy_on_meta
from razorlight.memory.in_backward import copy_optimizer


def plan_for_batch(
    trainer: Trainer, module: LightningModule, batch: Any, budget: int | float, **chosen: Any
) -> PlanWithin:
    """Plan how a module stores, so that a training step on a batch stays within a budget.

    Nothing runs on the batch: its shapes are read. The plan is that of the first process.

    Args:
        trainer: runs the fit.
        module: the module, dense.
        batch: a batch.
        budget: bytes, or a share of the peak of a dense step.
        **chosen: see :func:`razorlight.memory.budget.plan_within`.

    Raises:
        RazorError: if no plan fits, or the module has several optimizers.
    """
    if len(trainer.optimizers) != 1 or not module.automatic_optimization:
        raise RazorError(
            "BackRazor: memory_budget looks at a step with one optimizer, which Lightning steps; "
            f"give {type(module).__name__} a recipe"
        )
    precision = Precision(str(trainer.precision))
    lone = copy_on_meta(module, parts_of_run(trainer, module))
    assert isinstance(lone, LightningModule)
    record_nothing(lone)
    lone._trainer = None  # else each further copy would hold the trainer's

    def step(model: nn.Module, batch: Any) -> Tensor:
        assert isinstance(model, LightningModule)
        with precision.forward_context():
            return run_training_step(model, batch)

    def optimizer(model: nn.Module) -> Optimizer:
        pairs = zip(module.parameters(), model.parameters(), strict=True)
        return copy_optimizer(trainer.optimizers[0], dict(pairs))

    in_backward = bool(callbacks_of(trainer, OptimizerInBackward))
    is_ddp = isinstance(trainer.strategy, DDPStrategy)
    keeps_gradients = trainer.accumulate_grad_batches > 1 or is_ddp
    device = "cuda" if module.device.type == "cuda" else "cpu"
    how = in_backward, keeps_gradients, device
    found = plan_within(budget, lone, step, batch, optimizer, *how, **chosen)
    of_first: PlanWithin = trainer.strategy.broadcast(found)
    return of_first
