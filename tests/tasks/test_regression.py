"""Numbers of images: standardised for the loss, and scored in the units of the data."""

import csv

import pytest
import torch
from lightning.pytorch import seed_everything
from torch.nn import functional as F

from razorlight.callbacks import BackRazor
from razorlight.errors import RazorError
from razorlight.tasks import RegressionTask

TARGETS = torch.tensor([[1.0, 2000.0], [2.0, 2010.0], [4.0, 1990.0], [9.0, 2020.0]])
MEAN, STD = TARGETS.mean(0), TARGETS.std(0, correction=0)


@pytest.fixture
def numbers(classes):
    classes.dataset.tensors = (classes.dataset.tensors[0], TARGETS)
    classes.target_names = ("age", "year")
    classes.target_moments = lambda: (MEAN.tolist(), STD.tolist())
    return classes


def teller(**kwargs):
    seed_everything(0, verbose=False)
    return RegressionTask("resnet10t", 2, **kwargs)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("smooth_l1", F.smooth_l1_loss), ("mse", F.mse_loss), ("l1", F.l1_loss)],
)
def test_loss_is_that_of_standardised_targets(numbers, name, plain):
    task, outputs = teller(loss=name), torch.randn(4, 2)
    assert torch.equal(task.loss(outputs, TARGETS), plain(outputs, TARGETS))
    task.standardise(numbers)
    assert torch.allclose(task.loss(outputs, TARGETS), plain(outputs, (TARGETS - MEAN) / STD))
    assert torch.allclose(task.predictions((TARGETS - MEAN) / STD), TARGETS)


@pytest.mark.parametrize("razor", [[], [BackRazor()]], ids=["dense", "razor"])
def test_scores_are_those_of_each_target(trainer, numbers, capsys, caplog, tmp_path, razor):
    task, run = teller(), trainer(callbacks=razor)
    with caplog.at_level("INFO"):
        run.fit(task, numbers)
    said = "mean and deviation of the training data: age 4 ± 3.082, year 2005 ± 11.18"
    assert caplog.messages.count(said) == 1
    (tested,) = run.test(task, numbers)
    predictions = torch.cat(run.predict(task, numbers))
    errors = predictions.double() - TARGETS.double()
    mae, rmse = errors.abs().mean(0), errors.square().mean(0).sqrt()
    r2 = 1 - errors.square().mean(0) / STD.double() ** 2
    for name, values in {"MAE": mae, "RMSE": rmse, "R2": r2}.items():
        assert tested[f"test/{name}"] == pytest.approx(values.mean().item(), rel=1e-4)
    assert "error by target" in capsys.readouterr().out
    with (tmp_path / "test_targets.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["target"] for row in rows] == ["age", "year"]
    for name, values in {"MAE": mae, "RMSE": rmse, "R2": r2}.items():
        found = [float(row[name]) for row in rows]
        assert found == pytest.approx(values.tolist(), rel=1e-4)


def test_far_from_zero_r2_keeps_its_digits(trainer, numbers):
    """Sums of squares of these numbers differ by less than float32 can tell."""
    far = TARGETS + 1e5
    numbers.dataset.tensors = (numbers.dataset.tensors[0], far)
    numbers.target_moments = lambda: (far.mean(0).tolist(), STD.tolist())
    task, run = teller(), trainer()
    run.fit(task, numbers)
    (tested,) = run.test(task, numbers)
    errors = torch.cat(run.predict(task, numbers)).double() - far.double()
    r2 = 1 - errors.square().mean(0) / STD.double() ** 2
    assert tested["test/R2"] == pytest.approx(r2.mean().item(), abs=0.01)


def test_a_checkpoint_holds_mean_and_deviation(trainer, numbers, tmp_path):
    task, run = teller(), trainer(enable_checkpointing=True)
    run.fit(task, numbers)
    run.save_checkpoint(tmp_path / "end.ckpt")
    first = torch.cat(run.predict(task, numbers))
    del numbers.target_moments
    again = torch.cat(trainer().predict(teller(), numbers, ckpt_path=tmp_path / "end.ckpt"))
    assert torch.equal(again, first)


def test_one_sample_has_no_r2(trainer, numbers):
    numbers.dataset.tensors = tuple(part[:1] for part in numbers.dataset.tensors)
    (tested,) = trainer().test(teller(), numbers)
    assert tested["test/R2"] != tested["test/R2"]
    assert tested["test/MAE"] > 0


def test_refused(trainer, classes):
    with pytest.raises(RazorError, match="loss: there is no 'huber', only smooth_l1, mse, l1"):
        teller(loss="huber")
    with pytest.raises(RazorError, match=r"asks the data module for target_names .*Tiny has none"):
        trainer().fit(teller(), classes)
