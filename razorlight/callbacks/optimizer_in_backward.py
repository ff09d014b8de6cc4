"""The callback that steps the optimizer within backward, so that no gradients pile up."""

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from razorlight.callbacks.beside import callbacks_of
from razorlight.errors import RazorError
from razorlight.memory.in_backward import check_steps_one_by_one, step_in_backward

_LOOK_AT_GRADIENTS = ("on_after_backward", "on_before_optimizer_step")


class OptimizerInBackward(Callback):
    """Steps each parameter as soon as its gradient is whole, and frees the gradient.

    So the gradients of all parameters are never alive at once. A peak at the end of backward falls,
    by at most their bytes. The optimizer, its state, schedulers, checkpoints and
    resuming are the usual ones, and the run is bit for bit the usual one. The optimizer's own step
    still comes after backward, with its hooks; it finds no gradients left. Hooks between the two
    find none either, so a change of a gradient or of the learning rate there comes too late.

    Gradients can be clipped by value, but not by norm, and they cannot be accumulated over batches
    or scaled. One device and FSDP2 (``ModelParallelStrategy``)
    work. BatchSizeFinder and LearningRateFinder try the usual steps. Without Lightning, and in
    manual optimization, use :func:`razorlight.step_in_backward`.

    An exception within backward leaves some parameters stepped and others not. The ``last.ckpt`` of
    the command line is then the one before; so do not resume from a checkpoint that another
    callback saves on exceptions.

    Attributes:
        is_within_step: Whether a batch is between the beginning of its backward and its end.

    Raises:
        RazorError: when fit begins, if the optimizer does not step each parameter by itself (as
            LBFGS), or is missing; under manual optimization, accumulation, clipping by norm, a
            ``configure_gradient_clipping`` of the module's own, a gradient scaler (16-mixed), or
            another strategy. In training, if a batch was not stepped, or a parameter gets a second
            gradient.

    Example:
        >>> import torch
        >>> from lightning import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> module = BoringModel()
        >>> trainer = Trainer(max_steps=1, callbacks=[OptimizerInBackward()], barebones=True)
        >>> trainer.fit(module)
        >>> module.layer.weight.grad is None
        True
    """

    def __init__(self) -> None:
        self.is_within_step = False
        self._step = ExitStack()
        self._is_pending = False  # whether a backward was not followed by the optimizer's step
        self._clip_value: float | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _refuse_trainer(trainer)
            _refuse_module(pl_module)
            _refuse_accumulation(trainer)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.is_within_step = self._is_pending = False
        (optimizer,) = trainer.optimizers
        if not optimizer.param_groups:  # Lightning's stand-in for no optimizer
            raise RazorError(
                f"OptimizerInBackward: configure_optimizers of {type(pl_module).__name__} returns "
                "no optimizer; return one, or leave OptimizerInBackward out"
            )
        check_steps_one_by_one(optimizer)
        for hook in _LOOK_AT_GRADIENTS:
            if is_overridden(hook, pl_module):
                rank_zero_warn(
                    f"OptimizerInBackward: {hook} of {type(pl_module).__name__} finds no "
                    "gradients: each is applied and freed before"
                )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning would clip after backward, where torch fails if there is no gradient.
        self._clip_value, trainer.gradient_clip_val = trainer.gradient_clip_val, None

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._give_back_clipping(trainer)

    @override
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        step = step_in_backward(trainer.optimizers[0], self._clip_value or None)
        self._step.enter_context(step)
        self.is_within_step = True

    @override
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step.close()
        self._is_pending = True

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self._is_pending = False

    @override
    def on_train_batch_end(self, *args: Any) -> None:
        if self._is_pending:
            raise RazorError(
                "OptimizerInBackward: a batch was not followed by optimizer.step(), but its "
                "gradients are applied already; step at each batch, or leave OptimizerInBackward "
                "out"
            )
        self.is_within_step = False

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._step.__exit__(type(exception), exception, exception.__traceback__)
        self._give_back_clipping(trainer)

    def _give_back_clipping(self, trainer: Trainer) -> None:
        if self._clip_value is not None:
            trainer.gradient_clip_val, self._clip_value = self._clip_value, None


def _refuse_trainer(trainer: Trainer) -> None:
    if not isinstance(trainer.strategy, SingleDeviceStrategy | ModelParallelStrategy):
        raise RazorError(
            f"OptimizerInBackward does not support {type(trainer.strategy).__name__}, which needs "
            "gradients after backward; use one device, or ModelParallelStrategy with torch's "
            "fully_shard in configure_model"
        )
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise RazorError(
            f"OptimizerInBackward: with precision {trainer.precision} gradients are scaled until "
            "all of them are known; use bf16-mixed, or leave OptimizerInBackward out"
        )
    if trainer.gradient_clip_val and trainer.gradient_clip_algorithm != "value":
        raise RazorError(
            "OptimizerInBackward: gradients cannot be clipped by norm, which is that of all of "
            'them; set gradient_clip_algorithm="value", or leave OptimizerInBackward out'
        )


def _refuse_module(pl_module: LightningModule) -> None:
    name = type(pl_module).__name__
    if not pl_module.automatic_optimization:
        raise RazorError(
            f"OptimizerInBackward: {name} optimizes by hand; leave OptimizerInBackward out, and "
            "call manual_backward within razorlight.step_in_backward(optimizer)"
        )
    if is_overridden("configure_gradient_clipping", pl_module):
        raise RazorError(
            f"OptimizerInBackward: configure_gradient_clipping of {name} would find no gradients; "
            'clip by the trainer, with gradient_clip_algorithm="value", or leave '
            "OptimizerInBackward out"
        )


def _refuse_accumulation(trainer: Trainer) -> None:
    schedulers = [
        callback.scheduling for callback in callbacks_of(trainer, GradientAccumulationScheduler)
    ]
    most = max([trainer.accumulate_grad_batches, *(n for s in schedulers for n in s.values())])
    if most > 1:
        raise RazorError(
            f"OptimizerInBackward: gradients of {most} batches cannot be accumulated, because "
            "each is applied and freed in backward; use larger batches, or leave "
            "OptimizerInBackward out"
        )
