"""razorlight in anybody's Lightning project, in one line."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from typing_extensions import override

from razorlight.codecs import parse_codec
from razorlight.conversion import Conversion
from razorlight.errors import RazorError
from razorlight.memory.held import ValuesWatch
from razorlight.memory.shortage import is_shortage, note_way_out
from razorlight.planning import RecipeSpec, find_recipe, recipe_fields
from razorlight.planning.plan import make_plan
from razorlight.report import Report


class BackRazor(Callback):
    """Makes a LightningModule store less between forward and backward, while it is fit.

    When fit starts, it is decided what becomes of each layer. While a batch of training runs,
    layers have another class in place; before and after, also after an exception, they have their
    own. So everything else meets the dense module: ``configure_optimizers``, other hooks and
    callbacks, validation, and what is saved.

    Args:
        recipe: name of a recipe (``razorlight.RECIPES``), a mapping such as
            ``{"name": "compact", "bits": 4}``, or a :class:`razorlight.Recipe`; see
            :func:`razorlight.planning.find_recipe`.
        sparsity: share of the entries that is pruned, in [0, 1), where the recipe prunes.
        include: globs of layer names; only these are converted.
        exclude: globs of layer names that stay dense.
        overrides: ``{glob: codec}``, for example
            ``{"model.decoder.*": {"codec": "topk", "sparsity": 0.7}}``.

    Attributes:
        report: what was converted, once fit has begun; ``print(callback.report)`` names each layer.

    Raises:
        RazorError: here for an argument out of its range; when fit sets up, if a glob matches
            nothing, nothing would be converted, the strategy is DeepSpeed or FSDP's first version
            (its second is ``ModelParallelStrategy``), or a BatchSizeFinder or LearningRateFinder
            would try steps of layers that are made in ``configure_model``, dense by then.

    Example:
        >>> import torch
        >>> from lightning import Trainer
        >>> from torch.utils.data import DataLoader
        >>> from razorlight.tasks import ClassificationTask
        >>> razor = BackRazor(recipe="balanced", exclude=["net.layer4"])
        >>> trainer = Trainer(max_steps=1, callbacks=[razor], barebones=True)
        >>> samples = [(torch.randn(3, 32, 32), 0)] * 4
        >>> trainer.fit(ClassificationTask("resnet10t", 2), DataLoader(samples, batch_size=2))
        >>> print(razor.report.summary())
        converted ... of ... layers (...); left dense: ... excluded...
    """

    def __init__(
        self,
        recipe: RecipeSpec = "balanced",
        sparsity: float | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        overrides: Mapping[str, str | Mapping[str, Any]] | None = None,
    ) -> None:
        find_recipe(recipe, sparsity)
        self.overrides = {glob: parse_codec(spec) for glob, spec in (overrides or {}).items()}
        self.recipe, self.sparsity = recipe, sparsity
        self.include, self.exclude = include, exclude
        self.report: Report | None = None
        self._conversion: Conversion | None = None
        self._warned = False  # of what the first batch met
        self._watch: ValuesWatch | None = None  # in the first batch

    @property
    def recipe_name(self) -> str:
        """The name of the recipe, with ``*`` if it is changed; "own" without a name."""
        fields = recipe_fields(self.recipe)
        return fields if isinstance(fields, str) else f"{fields.get('name', 'own')}*"

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        _refuse_strategies(trainer)
        # first among callbacks: those that measure or try steps find the layers converted, and
        # those that look at the module or save it after a batch find it dense
        others = [each for each in trainer.callbacks if each is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [self, *others]  # type: ignore[attr-defined]
        if is_overridden("configure_model", pl_module):  # its layers do not exist yet
            _refuse_finders(trainer, pl_module)
        else:
            self._plan(pl_module)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # again: configure_model, SyncBatchNorm or a precision plugin may have put in new layers
        report = self._plan(pl_module).report
        self._warned, self._watch = False, None
        rank_zero_info(f"BackRazor: {report.summary()}")
        alike = defaultdict(list)
        for line in report.only("near miss"):
            alike[line.layer, line.detail].append(line.name)
        for (layer, detail), names in alike.items():
            more = f", as do {len(names) - 1} more" if len(names) > 1 else ""
            rank_zero_warn(f"BackRazor: {names[0]} ({layer}) stays dense{more}: {detail}")
        if finders := _finders(trainer):  # whose steps run before the first batch, without hooks
            rank_zero_warn(
                f"BackRazor: {finders[0]} tries its steps with converted layers, so on_fit_start "
                "meets these too, whose exact types are not those of torch; find in a run of its "
                "own if code there asks for exact types"
            )
            self._convert(pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._convert(pl_module)
        if self.report is not None and self._watch is None:
            self._watch = ValuesWatch(pl_module, self.report)
            if not _is_compiled(pl_module):
                self._watch.start()

    @override
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        if self.report is None or self._watch is None or not self._watch.active:
            return
        self.report = replace(self.report, held=tuple(map(str, self._watch.held(loss))))
        self._watch.stop()
        for line in self.report.held:
            rank_zero_warn(f"BackRazor: {line}")

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._restore(pl_module)
        if self.report is not None and not self._warned:
            self._warned = True
            for line in self.report.never_called():
                rank_zero_warn(f"BackRazor: {line}")

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(pl_module)  # a batch that is skipped has no end

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore(pl_module)
        self._conversion = None

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "fit")  # Lightning calls it not then
        if is_shortage(exception):
            note_way_out(exception, self.recipe_name)

    @override
    def state_dict(self) -> dict[str, Any]:
        # plain values: a checkpoint is read with weights_only=True
        return {"recipe": recipe_fields(self.recipe), "sparsity": self.sparsity}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict != self.state_dict():
            rank_zero_warn(
                f"BackRazor: the checkpoint was trained with {state_dict}, "
                f"this run goes on with {self.state_dict()}"
            )

    def _plan(self, pl_module: LightningModule) -> Conversion:
        plan = make_plan(
            pl_module, self.recipe, self.sparsity, self.include, self.exclude, self.overrides
        )
        self._conversion = Conversion(pl_module, plan)
        self.report = self._conversion.report
        return self._conversion

    def _convert(self, pl_module: LightningModule) -> None:
        conversion = self._conversion
        if conversion is None or not conversion.fits():  # layers were changed since
            conversion = self._plan(pl_module)
            rank_zero_info(f"BackRazor: layers were changed; {conversion.report.summary()}")
        conversion.apply()

    def _restore(self, pl_module: LightningModule) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._conversion is not None:
            self._conversion.take_back()


def _is_compiled(module: LightningModule) -> bool:
    """Whether a compiler would see hooks that run with modules."""
    return getattr(module, "_compiler_ctx", None) is not None or any(
        isinstance(part, torch._dynamo.OptimizedModule) or part._compiled_call_impl is not None
        for part in module.modules()
    )


def _refuse_strategies(trainer: Trainer) -> None:
    if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy):
        raise RazorError(
            f"BackRazor does not support {type(trainer.strategy).__name__}: use ddp, or "
            "ModelParallelStrategy with torch's fully_shard in configure_model"
        )


def _refuse_finders(trainer: Trainer, pl_module: LightningModule) -> None:
    for finder in _finders(trainer):
        raise RazorError(
            f"{finder} tries its steps before BackRazor can convert what "
            f"{type(pl_module).__name__} makes in configure_model: make the network in "
            "__init__, or find in a run of its own"
        )


def _finders(trainer: Trainer) -> list[str]:
    """The names of callbacks that try steps of training when fit starts."""
    kinds = (BatchSizeFinder, LearningRateFinder)
    return [type(c).__name__ for c in trainer.callbacks if isinstance(c, kinds)]  # type: ignore[attr-defined]
