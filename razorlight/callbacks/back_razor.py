"""The callback that brings razorlight into a Lightning project, in one line."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from typing_extensions import override

from razorlight.callbacks.beside import callbacks_of
from razorlight.callbacks.planning import plan_for_batch
from razorlight.codecs import parse_codec
from razorlight.conversion import Conversion, Plan, fit_plan, make_plan, read_given
from razorlight.errors import RazorError
from razorlight.memory.amounts import parse_budget
from razorlight.memory.held import ValuesWatch
from razorlight.memory.shortage import is_shortage, note_way_out
from razorlight.planning import RecipeSpec, find_recipe, recipe_fields


class BackRazor(Callback):
    """Makes a LightningModule store less between forward and backward, while it is fit.

    When fit starts, the callback makes the plan: what each layer becomes. While a batch of training
    runs, the layers have their razor classes. Before and after, also after an exception, they have
    their dense classes. So everything else meets the dense module: ``configure_optimizers``, other
    hooks and callbacks, validation, and checkpoints.

    Args:
        recipe: name of a recipe (``razorlight.RECIPES``), a mapping such as
            ``{"name": "compact", "bits": 4}``, or a :class:`razorlight.Recipe`; see
            :func:`razorlight.planning.find_recipe`.
        sparsity: share of the entries that is pruned, in [0, 1), if the recipe prunes.
        include: globs of layer names; only these layers are converted.
        exclude: globs of the names of layers that stay dense.
        overrides: codecs of single layers, as ``{glob: codec}``, for example
            ``{"model.decoder.*": {"codec": "topk", "sparsity": 0.7}}``.
        plan: a :class:`razorlight.Plan`, or the path of a ``plan.yaml`` of an earlier run, edited
            by hand or not. It takes the place of all other arguments.
        memory_budget: the most memory that a training step may take, such as ``"6GiB"``, or as a
            share of the peak of the dense step, such as 0.25. At the first batch a plan is made,
            block by block, that keeps the peak within the budget at the least time and error
            (:func:`razorlight.memory.plan_within`). It takes the place of a recipe. The peak is
            estimated as on a CPU; a :class:`MemoryProfiler` measures it after the first epoch.

    Attributes:
        plan: the plan, once fit has begun; ``print(callback.plan)`` names each layer. If the run
            has a folder, the plan is saved there as ``plan.yaml``.
        promised_peak: with a budget, the estimated peak of a step, in bytes, once there is a plan.

    Raises:
        RazorError: if an argument is out of its range. When fit sets up, also if a glob matches
            nothing, nothing would be converted, the plan is one of another network, or the strategy
            is DeepSpeed or the first version of FSDP (``ModelParallelStrategy`` is the second); or
            if a BatchSizeFinder or LearningRateFinder would try steps before the callback can
            convert layers that ``configure_model`` makes, or before there is a plan within a
            budget. At the first batch, if no plan fits into the budget.

    Example:
        >>> import torch
        >>> from lightning import Trainer
        >>> from torch.utils.data import DataLoader
        >>> from razorlight.tasks import ClassificationTask
        >>> razor = BackRazor(recipe="balanced", exclude=["net.layer4"])
        >>> trainer = Trainer(max_steps=1, callbacks=[razor], barebones=True)
        >>> samples = [(torch.randn(3, 32, 32), 0)] * 4
        >>> trainer.fit(ClassificationTask("resnet10t", 2), DataLoader(samples, batch_size=2))
        >>> print(razor.plan.summary())
        converted ... of ... layers (...); left dense: ... excluded...
    """

    def __init__(
        self,
        recipe: RecipeSpec = "balanced",
        sparsity: float | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        overrides: Mapping[str, str | Mapping[str, Any]] | None = None,
        plan: Plan | str | Path | None = None,
        memory_budget: str | float | None = None,
    ) -> None:
        find_recipe(recipe, sparsity)
        self.memory_budget = None if memory_budget is None else parse_budget(memory_budget)
        if memory_budget is not None and (recipe, sparsity, plan) != ("balanced", None, None):
            raise RazorError(
                "BackRazor: memory_budget chooses for each block how it stores: give no recipe, "
                "sparsity or plan beside it"
            )
        self.given_plan: Plan | None = None
        if plan is not None:
            self.given_plan = read_given(plan, recipe, sparsity, include, exclude, overrides)
        self.overrides = {glob: parse_codec(spec) for glob, spec in (overrides or {}).items()}
        self.recipe, self.sparsity = recipe, sparsity
        self.include, self.exclude = include, exclude
        self.plan: Plan | None = None
        self.promised_peak: int | None = None
        self._conversion: Conversion | None = None
        self._warned = False  # whether the warnings of the first batch were given
        self._watch: ValuesWatch | None = None  # watches the first batch

    @property
    def recipe_name(self) -> str:
        """The name of the recipe, with ``*`` if arguments change it, "by plan" or "by budget".

        A recipe without a name is "own*".
        """
        if self.given_plan is not None:
            return "by plan"
        if self.memory_budget is not None:
            return "by budget"
        fields = recipe_fields(self.recipe)
        return fields if isinstance(fields, str) else f"{fields.get('name', 'own')}*"

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        _refuse_strategies(trainer)
        # This callback goes first. Callbacks that measure or try steps then find razor layers, and
        # callbacks that look at the module or save it after a batch find the dense module.
        others = [each for each in callbacks_of(trainer, Callback) if each is not self]
        trainer.callbacks = [self, *others]  # type: ignore[attr-defined]
        if self.memory_budget is not None:
            _refuse_finders(
                trainer, "can plan for a batch: give memory_budget once its size is known"
            )
        elif is_overridden("configure_model", pl_module):  # its layers do not exist yet
            _refuse_finders(
                trainer,
                f"can convert layers that {type(pl_module).__name__} makes in configure_model: "
                "make the network in __init__, or use the finder in a run of its own",
            )
        else:
            self._make_plan(pl_module)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.promised_peak, self._warned, self._watch = None, False, None
        if self.memory_budget is not None:
            return
        # made again: configure_model, SyncBatchNorm or a precision plugin may have changed layers
        plan = self._make_plan(pl_module).plan
        rank_zero_info(f"BackRazor: {plan.summary()}")
        _save_in_folder(plan, trainer)
        alike = defaultdict(list)
        for line in plan.only("near miss"):
            alike[line.layer, line.detail].append(line.name)
        for (layer, detail), names in alike.items():
            more = f", as do {len(names) - 1} more" if len(names) > 1 else ""
            rank_zero_warn(f"BackRazor: {names[0]} ({layer}) stays dense{more}: {detail}")
        if finders := _finders(trainer):  # their steps run before the first batch, without hooks
            rank_zero_warn(
                f"BackRazor: {finders[0]} tries its steps with converted layers, so on_fit_start "
                "meets razor classes in place of torch's own; use the finder in a run of its own "
                "if code in on_fit_start compares exact types"
            )
            self._convert(pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.memory_budget is not None and self.promised_peak is None:
            self._plan_within_budget(trainer, pl_module, batch)
        self._convert(pl_module)
        if self.plan is not None and self._watch is None:
            self._watch = ValuesWatch(pl_module, self.plan)
            if not _is_compiled(pl_module):
                self._watch.start()

    @override
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        if self.plan is None or self._watch is None or not self._watch.active:
            return
        self.plan = replace(self.plan, held=tuple(map(str, self._watch.held(loss))))
        self._watch.stop()
        for line in self.plan.held:
            rank_zero_warn(f"BackRazor: {line}")

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._restore(pl_module)
        if self.plan is not None and not self._warned:
            self._warned = True
            for line in self.plan.never_called():
                rank_zero_warn(f"BackRazor: {line}")

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(pl_module)  # on_train_batch_end is not called for a batch that is skipped

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore(pl_module)
        self._conversion = None

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "fit")  # Lightning does not call it after an exception
        if is_shortage(exception):
            note_way_out(exception, self.recipe_name)

    @override
    def state_dict(self) -> dict[str, Any]:
        # only plain values, because a checkpoint is read with weights_only=True
        if self.given_plan is not None:
            return {"plan": {name: str(plan) for name, plan in self.given_plan.layers.items()}}
        if self.memory_budget is not None:
            return {"memory_budget": self.memory_budget}
        return {"recipe": recipe_fields(self.recipe), "sparsity": self.sparsity}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict != self.state_dict():
            rank_zero_warn(
                f"BackRazor: the checkpoint was trained with {state_dict}, "
                f"this run goes on with {self.state_dict()}"
            )

    def _plan_within_budget(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        assert self.memory_budget is not None
        chosen = {name: getattr(self, name) for name in ("include", "exclude", "overrides")}
        found = plan_for_batch(trainer, module, batch, self.memory_budget, **chosen)
        self.promised_peak = found.peak
        self._conversion = Conversion(module, found.plan)
        self.plan = self._conversion.plan
        rank_zero_info(f"BackRazor: {found}")
        _save_in_folder(found.plan, trainer)

    def _make_plan(self, pl_module: LightningModule) -> Conversion:
        if self.given_plan is not None:
            plan = fit_plan(self.given_plan, pl_module)
        elif self.memory_budget is not None and self.plan is not None:
            plan = self.plan
        else:
            chosen = (self.recipe, self.sparsity, self.include, self.exclude, self.overrides)
            plan = make_plan(pl_module, *chosen)
        self._conversion = Conversion(pl_module, plan)
        self.plan = self._conversion.plan
        return self._conversion

    def _convert(self, pl_module: LightningModule) -> None:
        conversion = self._conversion
        if conversion is None or not conversion.fits():  # layers have changed since it was made
            conversion = self._make_plan(pl_module)
            rank_zero_info(f"BackRazor: layers were changed; {conversion.plan.summary()}")
        conversion.apply()

    def _restore(self, pl_module: LightningModule) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._conversion is not None:
            self._conversion.take_back()


def _is_compiled(module: LightningModule) -> bool:
    """Whether a part of the module is compiled: its compiler would trace hooks of modules."""
    return getattr(module, "_compiler_ctx", None) is not None or any(
        isinstance(part, torch._dynamo.OptimizedModule) or part._compiled_call_impl is not None
        for part in module.modules()
    )


def _save_in_folder(plan: Plan, trainer: Trainer) -> None:
    """Save the plan in the folder of the run, if the run has one."""
    folder = trainer.log_dir  # read in all processes, because they agree on the folder
    trial = trainer.fast_dev_run  # type: ignore[attr-defined]
    if trainer.is_global_zero and trainer.logger and folder and not trial:
        _save_or_warn(plan, Path(folder) / "plan.yaml")


def _save_or_warn(plan: Plan, path: Path) -> None:
    """Save the plan, unless there is another that somebody may have edited; fit goes on anyway."""
    try:
        if not path.exists():
            plan.save(path)
        elif Plan.load(path).layers != plan.layers:
            rank_zero_warn(
                f"BackRazor: {path} says otherwise than this run, and stays as it is; to train by "
                f"it, give plan={str(path)!r} in place of a recipe"
            )
    except (OSError, RazorError) as error:
        rank_zero_warn(f"BackRazor: {path} holds no plan of this run: {error}")


def _refuse_strategies(trainer: Trainer) -> None:
    if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy):
        raise RazorError(
            f"BackRazor does not support {type(trainer.strategy).__name__}: use ddp, or "
            "ModelParallelStrategy with torch's fully_shard in configure_model"
        )


def _refuse_finders(trainer: Trainer, what: str) -> None:
    for finder in _finders(trainer):
        raise RazorError(f"{finder} tries its steps before BackRazor {what}")


def _finders(trainer: Trainer) -> list[str]:
    """The class names of the callbacks that try steps of training when fit starts."""
    finders = callbacks_of(trainer, BatchSizeFinder, LearningRateFinder)
    return [type(finder).__name__ for finder in finders]
