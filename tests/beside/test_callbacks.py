"""BackRazor before and after other callbacks: by the recipe exact, the run is the dense one."""

import pytest
import torch
from beside.runs import Small, assert_same, fit, trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

from razorlight import BackRazor, MemoryProfiler, RazorError
from razorlight.memory.meter import StorageMeter


class FreezeAndThaw(BaseFinetuning):
    """Trains the head, then the backbone too, then the backbone alone."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=0.05)
        elif epoch == 2:
            self.freeze(pl_module.head)


def double_lr(trainer, pl_module):
    for group in trainer.optimizers[0].param_groups:
        group["lr"] *= 2


CALLBACKS = {
    "averaging": WeightAveraging,
    "ema": lambda: EMAWeightAveraging(decay=0.5),
    "swa": lambda: StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1),
    "batch size": lambda: BatchSizeFinder(steps_per_trial=1, max_trials=2),
    "learning rate": lambda: LearningRateFinder(num_training_steps=6, update_attr=True),
    "backbone": lambda: BackboneFinetuning(unfreeze_backbone_at_epoch=1),
    "freeze and thaw": FreezeAndThaw,
    "early stopping": lambda: EarlyStopping("val_loss", min_delta=10.0, patience=1),
    "accumulation": lambda: GradientAccumulationScheduler({0: 2, 1: 1}),
    "pruning": lambda: ModelPruning("l1_unstructured", amount=0.3),
    "lambda": lambda: LambdaCallback(on_train_epoch_start=double_lr),
    "profiler": MemoryProfiler,
}


@pytest.fixture(scope="module")
def dense_runs():
    return {}


@pytest.mark.parametrize("razor_first", [True, False])
@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.filterwarnings("ignore")
def test_beside(name, razor_first, dense_runs, tmp_path):
    if name not in dense_runs:
        dense_runs[name] = fit(tmp_path, CALLBACKS[name]())
    callbacks = [BackRazor("exact"), CALLBACKS[name]()]
    model = fit(tmp_path, *(callbacks if razor_first else callbacks[::-1]))
    assert_same(model, dense_runs[name])
    for attribute in ("lr", "batch_size"):  # which finders set
        expected = getattr(dense_runs[name], attribute)
        assert getattr(model, attribute) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("razor_first", [True, False])
def test_beside_checkpoints_of_the_best(razor_first, tmp_path):
    def run(folder, *razors):
        best = ModelCheckpoint(folder, monitor="val_loss", filename="{epoch}-{step}")
        callbacks = [*razors, best] if razor_first else [best, *razors]
        fit(tmp_path, *callbacks)
        model = Small()
        model.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
        return best, model

    razor, razor_model = run(tmp_path / "razor", BackRazor("exact"))
    dense, dense_model = run(tmp_path / "dense")
    assert razor.best_model_path.split("/")[-1] == dense.best_model_path.split("/")[-1]
    assert_same(razor_model, dense_model)


class Tried(Small):
    """Notes what a step stores of a sample."""

    def training_step(self, batch, _):
        with StorageMeter() as meter:
            loss = self.loss(batch)
            self.stored = meter.live / len(batch[0])
        return loss


def test_batch_sizes_are_tried_with_the_razor(tmp_path):
    class Trials(Tried):
        stored_first = None

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.stored_first is None:  # of the first trial
                self.stored_first = self.stored
            return loss

    finder = BatchSizeFinder(steps_per_trial=1, max_trials=1)
    dense = fit(tmp_path, finder, module=Trials)
    razor = fit(tmp_path, finder, BackRazor(), MemoryProfiler(), module=Trials)
    assert razor.stored_first < dense.stored_first / 2


class Later(Tried):
    """Trains its backbone in odd epochs alone."""

    def on_train_epoch_start(self):
        self.backbone.requires_grad_(self.current_epoch % 2 == 1)

    def on_train_epoch_end(self):
        self.by_epoch = [*getattr(self, "by_epoch", []), self.stored]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def test_layers_record_while_they_train(tmp_path):
    frozen, trained, frozen_again = fit(tmp_path, BackRazor("exact"), module=Later).by_epoch
    assert frozen == frozen_again < trained / 2


@pytest.mark.parametrize("finder", [BatchSizeFinder, LearningRateFinder])
def test_finders_are_refused_where_they_would_try_dense_steps(finder, tmp_path):
    class Lazy(Small):
        def configure_model(self): ...

    with pytest.raises(RazorError, match=rf"{finder.__name__} .* before .*configure_model"):
        trainer(tmp_path, BackRazor(), finder()).fit(Lazy())


def test_two_razors_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `BackRazor`"):
        trainer(tmp_path, BackRazor("exact"), BackRazor("paper"))
