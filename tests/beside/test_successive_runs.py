"""One run after another, with the razor in some of them."""

import pytest
import torch
from beside.runs import Small, assert_same, fit, trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from razorlight import BackRazor, is_converted


def by_turns(folder, *callbacks):
    """Fit, validate, fit on, test, and fit with the same Trainer's callbacks again."""
    model = Small()
    runs = trainer(folder, *callbacks, max_epochs=1)
    runs.fit(model)
    results = runs.validate(model, verbose=False)
    runs.fit_loop.max_epochs = 2
    runs.fit(model)
    results += runs.test(model, verbose=False)
    trainer(folder, *callbacks).fit(model)
    assert not is_converted(model)
    return model, results


def test_by_turns(tmp_path):
    razor, razor_results = by_turns(tmp_path, BackRazor("exact"))
    dense, dense_results = by_turns(tmp_path)
    assert_same(razor, dense)
    for ours, theirs in zip(razor_results, dense_results, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_removed_between_two_runs(tmp_path):
    model, dense = Small(), Small()
    runs = trainer(tmp_path, BackRazor("paper"), max_epochs=1)
    runs.fit(model)
    dense.load_state_dict(model.state_dict())
    model.converted.clear()
    for each in (model, dense):
        trainer(tmp_path, max_epochs=1).fit(each)
    assert model.converted == {False}
    for name, value in dense.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


class Fails(Small):
    fail_at = None

    def on_after_backward(self):
        if self.fail_at == "backward":
            raise ZeroDivisionError

    def on_save_checkpoint(self, checkpoint):
        if self.fail_at == "checkpoint":
            raise ZeroDivisionError


@pytest.mark.parametrize("place", ["backward", "checkpoint"])
def test_the_next_run_is_right_after_one_that_raised(place, tmp_path):
    def run(*callbacks):
        model = Fails()
        model.fail_at = place
        checkpoint = ModelCheckpoint(tmp_path, every_n_epochs=1)
        with pytest.raises(ZeroDivisionError):
            trainer(tmp_path, checkpoint, *callbacks).fit(model)
        assert not is_converted(model)
        model.fail_at = None
        trainer(tmp_path, *callbacks, max_epochs=1).fit(model)
        return model

    assert_same(run(BackRazor("exact")), run())


def test_one_razor_for_two_modules(tmp_path):
    class Deeper(Small):
        def __init__(self):
            super().__init__()
            self.head.append(torch.nn.SiLU())

    razor = BackRazor("exact")
    for module in (Small, Deeper):
        assert_same(fit(tmp_path, razor, module=module), fit(tmp_path, module=module))
    assert "head.4" in [line.name for line in razor.plan.only("converted")]


@pytest.mark.parametrize("resumed_by", [BackRazor("exact"), None])
@pytest.mark.filterwarnings("ignore")
def test_resumed_by_another_recipe_or_none(resumed_by, tmp_path):
    """The run goes on as the dense one would from the same checkpoint."""
    fit(tmp_path, BackRazor("paper"), ModelCheckpoint(tmp_path, save_last=True), max_epochs=1)
    models = []
    for callbacks in ([resumed_by] if resumed_by else [], []):
        models.append(Small())
        runs = trainer(tmp_path, *callbacks)
        runs.fit(models[-1], ckpt_path=tmp_path / "last.ckpt")
        assert runs.global_step == 12
    assert_same(*models)
