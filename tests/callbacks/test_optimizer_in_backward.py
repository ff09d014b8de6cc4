"""A run whose optimizer steps within backward is bit for bit the usual run."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from beside.runs import Small, fit, trainer
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from razorlight import (
    RECIPES,
    BackRazor,
    MemoryProfiler,
    OptimizerInBackward,
    RazorError,
    step_in_backward,
)
from razorlight.callbacks import LastCheckpoint
from razorlight.memory.history import read_history


class Full(Small):
    """Groups, weight decay, frozen parameters, and a scheduler of each step."""

    def __init__(self, lr=0.01, batch_size=4):
        super().__init__(lr, batch_size)
        self.backbone[3].requires_grad_(False)
        self.never_used = nn.Linear(2, 2)

    def configure_optimizers(self):
        groups = [
            {"params": [*self.backbone.parameters(), *self.never_used.parameters()]},
            {"params": self.head.parameters(), "lr": 2 * self.lr, "weight_decay": 0.1},
        ]
        optimizer = torch.optim.AdamW(groups, self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=100)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def assert_equal(a, b):
    """Every tensor bit for bit, in whatever lists and dicts."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def trained(model):
    """All that training changes."""
    states = [optimizer.state_dict() for optimizer in model.trainer.optimizers]
    schedules = [config.scheduler.state_dict() for config in model.trainer.lr_scheduler_configs]
    return model.state_dict(), states, schedules


def assert_as_usual(folder, *callbacks, module=Full, **options):
    """The same run with and without the step in backward; callbacks are given as their classes."""
    usual = fit(folder, *[make() for make in callbacks], module=module, **options)
    steps = OptimizerInBackward()
    model = fit(folder, *[make() for make in callbacks], steps, module=module, **options)
    assert_equal(trained(model), trained(usual))
    assert all(p.grad is None for p in model.parameters())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    return model


@pytest.mark.parametrize("recipe", RECIPES)
def test_by_every_recipe(recipe, tmp_path):
    assert_as_usual(tmp_path, lambda: BackRazor(recipe))


def by(optimizer, **options):
    class Module(Small):
        def configure_optimizers(self):
            return optimizer(self.parameters(), **options)

    return Module


@pytest.mark.parametrize(
    "module",
    [
        by(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
        by(torch.optim.Adam, lr=0.01, amsgrad=True),
        by(torch.optim.AdamW, lr=0.01, foreach=True),
        by(torch.optim.AdamW, lr=0.01, fused=True),
        by(torch.optim.Rprop, lr=0.01),
    ],
)
def test_optimizers(module, tmp_path):
    assert_as_usual(tmp_path, module=module)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
        {"detect_anomaly": True},
        {"val_check_interval": 2},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_options_of_the_trainer(options, tmp_path):
    assert_as_usual(tmp_path, **options)


class FreezeAndThaw(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=0.05)
        elif epoch == 2:
            self.freeze(pl_module.head)


CALLBACKS = {
    "averaging": WeightAveraging,
    "ema": lambda: EMAWeightAveraging(decay=0.5),
    "swa": lambda: StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1),
    "batch size": lambda: BatchSizeFinder(steps_per_trial=1, max_trials=2),
    "learning rate": lambda: LearningRateFinder(num_training_steps=6, update_attr=True),
    "backbone": lambda: BackboneFinetuning(unfreeze_backbone_at_epoch=1),
    "freeze and thaw": FreezeAndThaw,
    "pruning": lambda: ModelPruning("l1_unstructured", amount=0.3),
    "profiler": MemoryProfiler,
}


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.filterwarnings("ignore")
def test_beside(name, is_first, tmp_path):
    usual = fit(tmp_path, CALLBACKS[name]())
    callbacks = [OptimizerInBackward(), CALLBACKS[name]()]
    model = fit(tmp_path, *(callbacks if is_first else callbacks[::-1]))
    assert_equal(trained(model), trained(usual))


def test_resumed_in_mid_run(tmp_path):
    """From the checkpoint of either kind of run, by either kind: checkpoints are the usual ones."""
    for name, first in (("usual", []), ("within", [OptimizerInBackward()])):
        saver = ModelCheckpoint(tmp_path / name, filename="{epoch}", save_top_k=-1)
        whole = fit(tmp_path, *first, saver, module=Full)
        for second in ([], [OptimizerInBackward()]):
            seed_everything(1, verbose=False)
            model = Full()
            trainer(tmp_path, *second).fit(model, ckpt_path=tmp_path / name / "epoch=0.ckpt")
            assert model.trainer.global_step == 12
            assert_equal(trained(model), trained(whole))


def test_checkpoints_are_those_of_the_usual_run(tmp_path):
    kept = []
    for name, steps in (("usual", []), ("within", [OptimizerInBackward()])):
        saver = ModelCheckpoint(tmp_path / name, monitor="val_loss", filename="best")
        fit(tmp_path, *steps, saver, module=Full)
        kept.append(torch.load(tmp_path / name / "best.ckpt", weights_only=True))
    for checkpoint in kept:
        del checkpoint["callbacks"]  # the paths of the checkpoints
    assert_equal(*kept)


class Asked(Callback):
    """Notes hooks in their order, and the gradients that are alive."""

    def __init__(self):
        self.calls, self.gradients = [], set()

    def on_before_zero_grad(self, *_):
        self.calls.append("zero grad")

    def on_before_backward(self, *_):
        self.calls.append("backward")

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.calls.append(("step", type(optimizer)))
        self.gradients.add(sum(p.grad is not None for p in pl_module.parameters()))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.calls.append(trainer.global_step)
        copied = pickle.loads(pickle.dumps(copy.deepcopy(pl_module.backbone)))
        assert_equal(copied.state_dict(), pl_module.backbone.state_dict())


def test_hooks_are_called_as_usual(tmp_path):
    usual, within = Asked(), Asked()
    fit(tmp_path, usual)
    fit(tmp_path, within, OptimizerInBackward())
    assert within.calls == usual.calls
    assert within.gradients == {0} != usual.gradients


class Skips(Small):
    """Leaves batches out in both ways."""

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if self.current_epoch == 1 and batch_idx == 2 else None

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx != 1 else None


class MoreBackwards(Small):
    """Runs backward on its own account, in training and in validation."""

    def training_step(self, batch, batch_idx):
        images = batch[0].clone().requires_grad_()
        self.loss((images, batch[1])).backward()
        return self.loss((images.detach() + 0.1 * images.grad.sign(), batch[1]))

    @torch.enable_grad()
    @torch.inference_mode(False)
    def validation_step(self, batch, _):
        loss = F.cross_entropy(self(batch[0].clone()), batch[1])
        loss.backward()
        self.log("val_loss", loss.detach())


class WarmsUp(Small):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        for group in optimizer.param_groups:
            group["lr"] = self.lr * min(1, (self.trainer.global_step + 1) / 5)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


class Compiled(Small):
    def __init__(self):
        super().__init__()
        self.head = torch.compile(self.head, backend="aot_eager")


@pytest.mark.parametrize("module", [Skips, MoreBackwards, WarmsUp, Compiled])
@pytest.mark.filterwarnings("ignore")
def test_modules_of_many_kinds(module, tmp_path):
    torch.compiler.reset()
    options = {"inference_mode": False} if module is MoreBackwards else {}
    usual = fit(tmp_path, module=module, **options)
    model = fit(tmp_path, OptimizerInBackward(), module=module, **options)
    assert_equal(trained(model)[:2], trained(usual)[:2])


class ByHand(Small):
    automatic_optimization = False
    context = nullcontext

    def training_step(self, batch, _):
        optimizer = self.optimizers()
        loss = self.loss(batch)
        with type(self).context(optimizer):
            self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def test_optimized_by_hand(tmp_path):
    class Within(ByHand):
        context = step_in_backward

    usual, model = fit(tmp_path, module=ByHand), fit(tmp_path, module=Within)
    assert model.trainer.global_step == usual.trainer.global_step
    assert_equal(trained(model), trained(usual))


class ClipsByItself(Small):
    def configure_gradient_clipping(self, optimizer, *_, **__):
        self.clip_gradients(optimizer, 0.1, "norm")


class NoOptimizer(Small):
    def configure_optimizers(self):
        return None


class EverySecond(Small):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


def scaled():
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))


REFUSED = {
    "optimizes by hand; .*step_in_backward": (ByHand, {}),
    "configure_gradient_clipping of ClipsByItself would find no": (ClipsByItself, {}),
    "configure_optimizers of NoOptimizer returns no optimizer": (NoOptimizer, {}),
    "a batch was not followed by optimizer.step": (EverySecond, {}),
    "LBFGS does not step each parameter by itself": (by(torch.optim.LBFGS), {}),
    "clipped by norm.*gradient_clip_algorithm": (Small, {"gradient_clip_val": 1.0}),
    "gradients of 3 batches cannot be accumulated": (Small, {"accumulate_grad_batches": 3}),
    "with precision 16-mixed gradients are scaled": (Small, {"plugins": scaled}),
    "does not support DDPStrategy": (Small, {"strategy": DDPStrategy}),
}


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_refused_in_one_line(message, tmp_path):
    module, options = REFUSED[message]
    made = {name: o() if callable(o) else o for name, o in options.items()}
    run = trainer(tmp_path, OptimizerInBackward(), **made)
    with pytest.raises(RazorError, match=message) as error:
        run.fit(module())
    assert "\n" not in str(error.value)
    if torch.distributed.is_initialized():  # by DDP's strategy
        torch.distributed.destroy_process_group()


def test_accumulation_by_a_callback_is_refused(tmp_path):
    accumulation = GradientAccumulationScheduler({0: 1, 1: 2})
    with pytest.raises(RazorError, match="gradients of 2 batches cannot be accumulated"):
        trainer(tmp_path, accumulation, OptimizerInBackward()).fit(Small())


@pytest.mark.parametrize("hook", ["on_after_backward", "on_before_optimizer_step"])
def test_hooks_of_the_module_that_look_at_gradients_are_named(hook, tmp_path):
    class Looks(Small): ...

    setattr(Looks, hook, lambda *_: None)
    with pytest.warns(UserWarning, match=f"{hook} of Looks finds no gradients"):
        fit(tmp_path, OptimizerInBackward(), module=Looks)


class Fails(Small):
    """Fails in the second epoch, where the head is stepped and the backbone is not."""

    def __init__(self):
        super().__init__()
        self.after = {}

    def training_step(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 2):
            batch = (batch[0].requires_grad_(), batch[1])
            batch[0].register_hook(self.fail)
        return super().training_step(batch, batch_idx)

    def fail(self, _):
        raise ZeroDivisionError

    def on_train_batch_end(self, *_):
        self.after[self.global_step] = self.head[3].bias.clone()


def test_a_backward_that_fails_leaves_no_hooks(tmp_path):
    model, steps = Fails(), OptimizerInBackward()
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, steps).fit(model)
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    seed_everything(0, verbose=False)
    model = Small()
    trainer(tmp_path, steps).fit(model)
    assert_equal(model.state_dict(), fit(tmp_path).state_dict())


def test_half_a_step_is_not_saved(tmp_path):
    """The checkpoint is that of the epoch before, and not one that is stepped in part."""
    for steps, step in (([], 6), ([OptimizerInBackward()], 4)):
        model, last = Fails(), LastCheckpoint()
        with pytest.raises(ZeroDivisionError):
            trainer(tmp_path / str(step), *steps, last).fit(model)
        saved = torch.load(last.path, weights_only=True)
        assert saved["global_step"] == step
        assert_equal(saved["state_dict"]["head.3.bias"], model.after[step])


def test_a_reader_of_a_stepped_parameter_is_told(tmp_path):
    class Reads(Small):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(3))

        def forward(self, x):
            return super().forward(x) @ self.weight.detach() @ self.weight

    with pytest.raises(RuntimeError, match="inplace") as error:
        fit(tmp_path, OptimizerInBackward(), module=Reads)
    assert "OptimizerInBackward" in error.value.__notes__[0]


class Wide(Small):
    """Nearly all of its memory is parameters."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(32, 96), *[nn.Linear(96, 96) for _ in range(40)])


def test_the_profiler_shows_the_lower_peak(tmp_path):
    rows, compared, parameters = [], [], 0
    for name, steps in (("usual", []), ("within", [OptimizerInBackward()])):
        profiler = MemoryProfiler()
        model = fit(tmp_path / name, profiler, *steps, BackRazor("exact"), module=Wide)
        (*_, row) = [r for r in read_history(tmp_path / name / "memory.csv") if r.phase == "train"]
        rows.append(row)
        compared.append(profiler.compared)
        parameters = sum(p.nbytes for p in model.parameters())
    usual, within = rows
    mib = 2**20
    assert usual.gradients_mib == pytest.approx(parameters / mib, abs=1e-3)
    assert within.gradients_mib == 0
    assert usual.stored_mib == within.stored_mib
    assert usual.optimizer_mib == within.optimizer_mib
    assert usual.peak_mib - within.peak_mib == pytest.approx(parameters / mib, rel=0.1)
    for mode in ("razor", "dense"):
        fallen = compared[0][mode].peak - compared[1][mode].peak
        assert fallen == pytest.approx(parameters, rel=0.1)
        assert compared[0][mode].stored == compared[1][mode].stored


def test_by_its_path_in_yaml():
    parser = ArgumentParser()
    parser.add_argument("--callbacks", type=list[Callback])
    config = parser.parse_object({"callbacks": [{"class_path": "razorlight.OptimizerInBackward"}]})
    (callback,) = parser.instantiate_classes(config).callbacks
    assert isinstance(callback, OptimizerInBackward)
