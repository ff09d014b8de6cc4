"""The memory of a run, measured: peaks by phase and epoch, and one step dense beside razor."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from razorlight._torch import tree_leaves
from razorlight.callbacks.back_razor import BackRazor
from razorlight.callbacks.beside import callbacks_of
from razorlight.callbacks.memory_log import MemoryLog
from razorlight.callbacks.step_comparison import compare_step, obstacle
from razorlight.conversion import is_converted
from razorlight.errors import RazorError
from razorlight.logged_pictures import log_picture
from razorlight.memory.history import PhaseMemory
from razorlight.memory.meter import MIB, model_tensors, storage_bytes
from razorlight.memory.phases import PhaseMeter
from razorlight.memory.step import StepMemory


class MemoryProfiler(Callback):
    """Measures the memory of a run, and writes it down.

    * Each epoch and phase (train, val, test): peak allocated; for train also the most that was
      stored between forward and backward, parameters, gradients and optimizer state. Logged as
      ``memory/{phase}_{size}_mib`` (the maximum over ranks), and appended to ``memory.csv`` in the
      run's folder, which a resumed run continues; ``memory.png`` and ``memory.html`` show it.
    * The train phase's peak so far, as ``peak_mib`` in the progress bar.
    * One training step (forward and backward of the first batch), dense beside razor, measured on
      copies of the module: weights, buffers, metrics, logs and random state stay untouched. On the
      CPU two more runs of each find what sets its peak (:func:`razorlight.memory.find_peak`).
      ``step.json`` in the run's folder holds it, with the bytes that each layer stores.
    * A table of all that at the end of fit (the one step is rank zero's).

    On CUDA the allocator is read over all of a phase, whatever is allocated. Its peak statistics,
    which the process shares, are reset when a phase begins. On the CPU live storages are counted
    over the first steps of each phase in each epoch: parameters, buffers, gradients, optimizer
    state, the batch, and all that the step makes, but not the scratch memory of PyTorch's own
    kernels. A counted step of a small CNN takes 1.4 times its usual time, and every other step
    the time that it takes without the profiler (measured by ``python tools/profiler_cost.py``).

    Under manual optimization nothing is stored "between forward and backward" and the step is not
    compared; nor is it under strategies other than a single device and DDP.

    Args:
        steps: optimizer steps of each epoch, and validation or test batches of each dataloader,
            that are measured: on the CPU all their memory, on CUDA only what is stored.
        compare: Whether to measure one step dense and razor. On CUDA the copy's parameters need
            memory beside the run's own. A step for which there is none is shown as "out of memory".

    Attributes:
        compared: memory of the first batch's step, "razor" and "dense"; None for a step that ran
            out of memory. It is empty before the first batch of a fit.

    Raises:
        RazorError: if ``steps`` is below 1; at the start of a run, if the device is neither a CPU
            nor a CUDA device, or ``memory.csv`` is a file of another kind; at its first batch, if
            the module cannot be copied or its training step returns no loss.

    Example:
        >>> import torch
        >>> from lightning import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> profiler = MemoryProfiler()
        >>> trainer = Trainer(
        ...     max_epochs=1,
        ...     limit_train_batches=2,
        ...     callbacks=[profiler],
        ...     enable_progress_bar=False,
        ...     enable_model_summary=False,
        ... )
        >>> trainer.fit(BoringModel())
        Memory in MiB, measured: batch 1, 32-true, ...
        >>> profiler.compared["dense"].stored > 0
        True
    """

    def __init__(self, steps: int = 2, compare: bool = True) -> None:
        if steps < 1:
            raise RazorError(f"MemoryProfiler: steps must be at least 1, got {steps}")
        self.steps = steps
        self.compare = compare
        self._phases = PhaseMeter(torch.device("cpu"))
        self._log = MemoryLog(None)
        self._forget_run()

    def _forget_run(self) -> None:
        self._val_row: list[PhaseMemory] = []  # of this epoch, until the epoch ends
        self._gradients = 0
        self._mode = ""
        self._title = ""
        self._is_promise_checked = False
        self.compared: dict[str, StepMemory | None] = {}

    # ---- a run begins and ends

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._phases = PhaseMeter(trainer.strategy.root_device)
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # every rank must ask for it
        trial = trainer.fast_dev_run  # type: ignore[attr-defined]
        self._log = MemoryLog(None if trial else folder / "memory.csv")
        if stage == TrainerFn.FITTING:
            self._forget_run()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._phases.leave()
        if not trainer.is_global_zero or not self._log.rows:
            return
        if picture := self._log.save(self._title or "Memory in MiB, measured", self.compared):
            log_picture(trainer, picture)
        if stage == TrainerFn.FITTING:
            metrics = trainer.callback_metrics.items()
            scores = {k: float(v) for k, v in metrics if k.startswith(("val/", "val_"))}
            self._log.print_table(self._title, self._mode, self.compared, scores)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._phases.leave()

    # ---- train

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a run resumed within an epoch begins with no on_train_epoch_start
        self.on_train_epoch_start(trainer, pl_module)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._phases.reset()
        self._val_row = []
        self._gradients = 0
        self._enter_train(trainer)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._mode:
            self._look_at_first_batch(trainer, pl_module, batch, batch_idx)
        if isinstance(trainer.model, DistributedDataParallel):
            # the second forward would make the buckets of gradients anew, which no step stores
            trainer.model.reducer._rebuild_buckets()
        self._phases.start_step(partial(_held, trainer, pl_module, batch))

    @override
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        if self._phases.measuring and pl_module.automatic_optimization:
            self._phases.note_stored()

    @override
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._phases.measuring:
            gradients = storage_bytes([p.grad for p in pl_module.parameters()])
            self._gradients = max(self._gradients, gradients)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._phases.end_step()
        pl_module.log("peak_mib", self._phases.peak / MIB, prog_bar=True, logger=False)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._phases.leave()
        row = self._record(
            trainer,
            pl_module,
            "train",
            stored=self._phases.stored,
            parameters=storage_bytes(list(pl_module.parameters())),
            gradients=self._gradients,
            optimizer=storage_bytes(_optimizer_state(trainer)),
        )
        self._append(trainer, [row, *self._val_row])
        razors = callbacks_of(trainer, BackRazor)
        promised = next((c.promised_peak for c in razors if c.promised_peak), None)
        if promised and not self._is_promise_checked:
            self._is_promise_checked = True
            rank_zero_info(
                f"MemoryProfiler: the peak of the first epoch is {row.peak_mib:.1f} MiB, measured; "
                f"BackRazor estimated {promised / MIB:.1f} MiB"
            )

    # ---- validation (which runs within the epoch of train) and test

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if not _fitting(trainer):
            self._phases.reset()
        self._phases.enter("val", self.steps)

    @override
    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._phases.start_step(partial(_held, trainer, pl_module, batch), dataloader_idx)

    @override
    def on_validation_batch_end(self, *args: Any) -> None:
        self._phases.end_step()

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._phases.leave()
        self._val_row = [self._record(trainer, pl_module, "val")]
        if not _fitting(trainer):
            self._append(trainer, self._val_row)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _fitting(trainer) and not trainer.sanity_checking:
            self._enter_train(trainer)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._phases.reset()
        self._phases.enter("test", self.steps)

    @override
    def on_test_batch_start(self, *args: Any) -> None:
        self.on_validation_batch_start(*args)

    @override
    def on_test_batch_end(self, *args: Any) -> None:
        self._phases.end_step()

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._phases.leave()
        self._append(trainer, [self._record(trainer, pl_module, "test")])

    # ---- rows

    def _enter_train(self, trainer: Trainer) -> None:
        self._phases.enter("train", self.steps * trainer.accumulate_grad_batches)

    def _record(
        self, trainer: Trainer, pl_module: LightningModule, phase: str, **sizes: int | None
    ) -> PhaseMemory:
        """Log the phase just left, the maximum over ranks, and return it as a row."""
        known = {"peak": self._phases.peaks[phase]}
        known.update({name: size for name, size in sizes.items() if size is not None})
        values = torch.tensor(list(known.values()), device=trainer.strategy.root_device)
        highest = trainer.strategy.reduce(values, reduce_op="max").tolist()
        in_mib = {f"{name}_mib": size / MIB for name, size in zip(known, highest, strict=True)}
        row = PhaseMemory(trainer.current_epoch, phase, **in_mib)
        logged = {f"memory/{phase}_{name}": size for name, size in row.sizes().items()}
        pl_module.log_dict(logged, reduce_fx="max", sync_dist=True)
        return row

    def _append(self, trainer: Trainer, rows: list[PhaseMemory]) -> None:
        if trainer.is_global_zero:
            self._log.append(rows)

    # ---- one step, dense and razor

    def _look_at_first_batch(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._mode = "razor" if is_converted(pl_module) else "dense"
        sizes = [t.shape[0] for t in tree_leaves(batch) if isinstance(t, Tensor) and t.ndim]
        self._title = (
            f"Memory in MiB, measured: batch {sizes[0] if sizes else '?'}, "
            f"{trainer.precision}, {trainer.strategy.root_device}"
        )
        if not self.compare:
            return
        if why := obstacle(trainer, pl_module):
            rank_zero_info(f"MemoryProfiler: dense and razor are not compared {why}")
            return
        self._phases.leave()  # measuring a step resets the peaks of CUDA's allocator
        self.compared = compare_step(trainer, pl_module, batch, batch_idx)
        self._enter_train(trainer)


def _fitting(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _held(trainer: Trainer, pl_module: LightningModule, batch: Any) -> object:
    return model_tensors(pl_module), _optimizer_state(trainer), batch


def _optimizer_state(trainer: Trainer) -> object:
    return [dict(optimizer.state) for optimizer in trainer.optimizers]
