import copy
import subprocess
import sys
import time
import warnings

import pytest
import torch
import yaml
from callbacks.plain_module import Plain, loader, network, trainer
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint, WeightAveraging
from torch import nn

from razorlight import BackRazor, RazorError, is_converted
from razorlight.conversion import Conversion, make_plan
from razorlight.planning import compact, find_recipe


class Lazy(Plain):
    def __init__(self):
        LightningModule.__init__(self)
        self.model = None

    def configure_model(self):
        if self.model is None:
            self.model = network()


class Spy(Callback):
    """In which hooks the module is converted."""

    def __init__(self):
        self.converted = {}

    def __getattribute__(self, name):
        # every hook that has arguments (trainer, pl_module, ...)
        if not name.startswith("on_") or name in ("on_save_checkpoint", "on_load_checkpoint"):
            return super().__getattribute__(name)

        def hook(trainer, pl_module, *_, **__):
            self.converted.setdefault(name, set()).add(is_converted(pl_module))

        return hook


class Exact(Plain):
    """Asks for exact types wherever code of others does."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def note(self):
        self.asked.append([type(m) for m in self.modules()])

    def configure_optimizers(self):
        self.note()
        return super().configure_optimizers()

    def on_fit_start(self):
        self.note()

    def on_train_epoch_start(self):
        self.note()

    def on_train_batch_end(self, *_):
        self.note()

    def on_validation_epoch_end(self):
        self.note()

    def on_save_checkpoint(self, checkpoint):
        self.note()


@pytest.mark.parametrize("module", [Plain, Lazy])
def test_converts_for_fit_alone(module, tmp_path):
    spy, razor, model = Spy(), BackRazor(), module()
    trainer(spy, razor, tmp_path=tmp_path).fit(model, loader(), loader())
    for name in (
        "on_train_batch_start",
        "on_before_zero_grad",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimizer_step",
    ):
        assert spy.converted.pop(name) == {True}
    assert all(seen == {False} for seen in spy.converted.values())
    assert len(spy.converted) > 10
    assert not is_converted(model)
    assert "model.1" in [line.name for line in razor.plan.only("converted")]
    trainer(razor, tmp_path=tmp_path).validate(model, loader(), verbose=False)
    trainer(razor, spy, tmp_path=tmp_path).fit(model, loader())
    assert spy.converted["on_train_batch_start"] == {True}


def test_exact_types_are_those_of_the_dense_run(tmp_path):
    asked = []
    for callbacks in ([], [BackRazor()]):
        model = Exact()
        checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=1)
        fit = trainer(*callbacks, checkpoint, tmp_path=tmp_path, max_epochs=2)
        fit.fit(model, loader(), loader())
        asked.append(model.asked)
    assert asked[0] == asked[1]


def test_finders_meet_razor_layers_and_that_is_said(tmp_path):
    finder = LearningRateFinder(num_training_steps=2, early_stop_threshold=None, update_attr=False)
    with pytest.warns(UserWarning, match="LearningRateFinder tries its steps with converted"):
        trainer(finder, BackRazor(), tmp_path=tmp_path).fit(Plain(), loader())


def test_layers_that_are_put_in_later_are_converted(tmp_path):
    class Grows(Plain):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.model[3] = nn.Conv2d(8, 8, 3, padding=1)
                self.model.append(nn.LayerNorm(3))

    razor, spy = BackRazor(), Spy()
    model = Grows()
    trainer(razor, spy, tmp_path=tmp_path, max_epochs=2).fit(model, loader())
    assert "model.9" in [line.name for line in razor.plan.only("converted")]
    assert not is_converted(model)


def test_a_skipped_batch_leaves_nothing_converted(tmp_path):
    class Skips(Plain):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 1 else None

    spy = Spy()
    trainer(spy, BackRazor(), tmp_path=tmp_path).fit(Skips(), loader(), loader())
    assert spy.converted["on_train_epoch_end"] == {False}
    assert spy.converted["on_validation_end"] == {False}


def test_a_copy_made_in_a_step_is_dense_behind_it(tmp_path):
    class Averages(Plain):
        def training_step(self, batch, batch_idx):
            if batch_idx == 0:
                self.average = copy.deepcopy(self.model)
            return super().training_step(batch, batch_idx)

    spy, model = Spy(), Averages()
    trainer(spy, BackRazor(), tmp_path=tmp_path).fit(model, loader(), loader())
    assert spy.converted["on_train_batch_end"] == {False}
    assert not is_converted(model)


def test_the_switch_takes_no_time():
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.ReLU()) for _ in range(100))
    )
    conversion = Conversion(model, make_plan(model, "exact"))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        assert conversion.fits()
        conversion.apply()
        conversion.take_back()
        times.append(time.perf_counter() - start)
    assert not is_converted(model)
    assert min(times) < 1e-3  # seconds, for 300 layers


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_saved_during_fit_opens_without_razorlight(whole, tmp_path):
    class Holds(Plain):
        def __init__(self, net):
            super().__init__()
            self.save_hyperparameters()
            self.model = net

        def on_before_backward(self, loss):  # while it is converted
            if whole:
                torch.save(self.model, tmp_path / "m.ckpt")

    warnings.filterwarnings("ignore", ".*net. is an instance of")
    checkpoint = ModelCheckpoint(tmp_path, "m") if not whole else Callback()
    trainer(BackRazor(), checkpoint, tmp_path=tmp_path).fit(Holds(network()), loader())
    blocked = "import sys; sys.modules['razorlight'] = None; import torch; "
    load = f"print(torch.load({str(tmp_path / 'm.ckpt')!r}, weights_only=False))"
    read = subprocess.run([sys.executable, "-c", blocked + load], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
    assert "Conv2d(8, 8" in read.stdout


def test_same_loss_as_dense_when_exact(tmp_path):
    weights = []
    for callbacks in ([], [BackRazor("exact")]):
        model = Plain()
        torch.manual_seed(1)
        trainer(*callbacks, tmp_path=tmp_path, max_epochs=3).fit(model, loader())
        weights.append(model.state_dict())
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=1e-3, atol=1e-5, msg=key)


def test_restored_after_an_exception(tmp_path):
    class Failing(Plain):
        def training_step(self, batch, _):
            super().training_step(batch, _)
            raise RuntimeError("in the middle")

    model = Failing()
    with pytest.raises(RuntimeError, match="in the middle"):
        trainer(BackRazor(), tmp_path=tmp_path).fit(model, loader())
    assert not is_converted(model)


@pytest.mark.parametrize("averaging_first", [True, False])
def test_beside_weight_averaging(averaging_first, tmp_path):
    callbacks = [WeightAveraging(), BackRazor()]
    model = Plain()
    before = copy.deepcopy(model.state_dict())
    order = callbacks if averaging_first else callbacks[::-1]
    trainer(*order, tmp_path=tmp_path).fit(model, loader())
    assert not torch.equal(before["model.3.weight"], model.state_dict()["model.3.weight"])
    assert model.state_dict().keys() == before.keys()


def test_checkpoints_load_both_ways(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    model = Plain()
    trainer(BackRazor(), checkpoint, tmp_path=tmp_path).fit(model, loader())
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    Plain().load_state_dict(saved["state_dict"], strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, saved["state_dict"][key])
    # and a dense checkpoint goes on as a razor run
    dense = ModelCheckpoint(tmp_path / "dense", save_last=True)
    trainer(dense, tmp_path=tmp_path).fit(Plain(), loader())
    again = trainer(BackRazor(), tmp_path=tmp_path, max_epochs=2)
    again.fit(Plain(), loader(), ckpt_path=tmp_path / "dense" / "last.ckpt")
    assert again.global_step == 8


def test_resume_goes_on_exactly(tmp_path):
    class Seeded(Plain):
        def on_train_batch_start(self, *_):
            torch.manual_seed(self.global_step)  # dropout alike in both runs

    def run(folder, epochs, resume=None):
        model = Seeded()
        checkpoint = ModelCheckpoint(tmp_path / folder, save_last=True)
        fit = trainer(BackRazor(), checkpoint, tmp_path=tmp_path, max_epochs=epochs)
        fit.fit(model, loader(), ckpt_path=resume)
        return model.state_dict()

    whole = run("whole", 4)
    run("half", 2)
    resumed = run("rest", 4, tmp_path / "half" / "last.ckpt")
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_resuming_with_other_settings_is_said(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    trainer(BackRazor(sparsity=0.9), checkpoint, tmp_path=tmp_path).fit(Plain(), loader())
    with pytest.warns(UserWarning, match=r"was trained with .*0\.9.* goes on with .*0\.5"):
        trainer(BackRazor(sparsity=0.5), tmp_path=tmp_path, max_epochs=2).fit(
            Plain(), loader(), ckpt_path=tmp_path / "last.ckpt"
        )


@pytest.mark.parametrize("recipe", [{"name": "compact", "bits": 4}, compact(bits=4)])
def test_a_recipe_of_ones_own(recipe, tmp_path):
    razor = BackRazor(recipe)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    trainer(razor, checkpoint, tmp_path=tmp_path).fit(Plain(), loader())
    assert any("4 bits" in line.detail for line in razor.plan.lines)
    torch.load(tmp_path / "last.ckpt", weights_only=True)

    def resume(recipe):
        again = trainer(BackRazor(recipe), tmp_path=tmp_path, max_epochs=2)
        again.fit(Plain(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "BackRazor: the checkpoint")
        resume(recipe)
    with pytest.warns(UserWarning, match=r"was trained with .*compact|norm.* goes on with"):
        resume("balanced")


def test_a_recipe_in_yaml(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Callback, "callback")
    for recipe in (
        "compact",
        "{name: compact, bits: 4}",
        "{name: exact, smooth_activation: {codec: dense}}",
    ):
        path = tmp_path / "callback.yaml"
        path.write_text(f"class_path: razorlight.BackRazor\ninit_args: {{recipe: {recipe}}}")
        chosen = parser.parse_args([f"--callback={path}"])
        razor = parser.instantiate_classes(chosen).callback
        assert find_recipe(razor.recipe) == find_recipe(yaml.safe_load(recipe))


def test_near_miss_is_warned_of(tmp_path):
    class MyConv(nn.Conv2d):
        pass

    model = Plain()
    model.model[3] = MyConv(8, 8, 3)
    with pytest.warns(UserWarning, match=r"model\.3 \(MyConv\) stays dense"):
        trainer(BackRazor(), tmp_path=tmp_path).fit(model, loader())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.5}, "sparsity must be in"),
        ({"recipe": "papr"}, "unknown recipe"),
        ({"overrides": {"*": "topp"}}, "unknown codec"),
    ],
)
def test_refuses_at_once(arguments, message):
    with pytest.raises(RazorError, match=message):
        BackRazor(**arguments)


def test_refuses_a_pattern_that_matches_nothing(tmp_path):
    with pytest.raises(RazorError, match=r"pattern .model\.head. matches"):
        trainer(BackRazor(exclude=["model.head"]), tmp_path=tmp_path).fit(Plain(), loader())
