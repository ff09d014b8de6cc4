"""How far the probabilities of a classifier can be trusted."""

import numpy as np
import pytest
import torch
from PIL import Image

from razorlight.tasks import ClassificationTask, SegmentationTask
from razorlight.tasks.certainty import THRESHOLDS, CertaintyMetric


def metric_of(second, targets):
    """Over two classes, of which the second has these probabilities."""
    second = torch.tensor(second)
    metric = CertaintyMetric(2)
    for part in range(len(second)):  # batch by batch
        probabilities = torch.stack([1 - second, second], 1)[part : part + 1]
        metric.update(probabilities, torch.tensor(targets)[part : part + 1])
    return metric


def test_the_best_threshold_and_the_calibration_error():
    certainty = metric_of([0.1, 0.3, 0.4, 0.45, 0.8], [0, 0, 1, 0, 1]).compute()
    # from 0.4 on: two hits of three; from 0.5 on: one hit of one, one missed
    at = {t: round(t * (THRESHOLDS - 1)) for t in (0.4, 0.5)}
    assert certainty.precision[1, at[0.4]] == pytest.approx(2 / 3)
    assert certainty.recall[1, at[0.4]] == 1
    # the likeliest class: .9 and .7 right, .6 wrong, .55 and .8 right, each in its bin
    expected = (0.1 + 0.3 + 0.6 + 0.45 + 0.2) / 5
    assert certainty.calibration_error == pytest.approx(expected)
    error, f1 = certainty.lines(["birch", "oak"])
    assert error == f"calibration error {expected:.3f}"
    assert f1 == "oak: F1 0.800 from probability 0.305, 0.667 from 0.5"


def test_each_evaluation_begins_anew():
    metric = metric_of([0.9, 0.2], [1, 0])
    first = metric.compute()
    metric.update(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([1, 0]))
    second = metric.compute()
    assert (first.calibration_error, second.calibration_error) == pytest.approx((0.15, 0.85))


@pytest.mark.parametrize("classes", [3, 40])
def test_a_class_that_does_not_occur(tmp_path, classes):
    metric = CertaintyMetric(classes)
    probabilities = torch.randn(8, classes, generator=torch.Generator().manual_seed(0)).softmax(1)
    metric.update(probabilities, torch.tensor([0, 1] * 4))
    certainty = metric.compute()
    names = [str(n) for n in range(classes)]
    assert len([*certainty.lines(names)]) == 1  # thresholds are for two classes
    path = certainty.save(tmp_path, "test", names)
    assert path == tmp_path / "test_precision_recall.png"
    assert np.asarray(Image.open(path)).std() > 1


@pytest.mark.parametrize("stage", ["val", "test"])
def test_of_an_evaluation(trainer, classes, capsys, tmp_path, stage):
    task = ClassificationTask("resnet10t", 3)
    state = [*task.state_dict()]
    run = trainer()
    (run.validate if stage == "val" else run.test)(task, classes)
    assert "calibration error 0." in capsys.readouterr().out
    assert (tmp_path / f"{stage}_precision_recall.png").is_file()
    assert [*task.state_dict()] == state


def test_neither_within_fit_nor_of_masks(trainer, classes, masks, capsys, tmp_path):
    trainer().fit(ClassificationTask("resnet10t", 3), classes)
    trainer().test(SegmentationTask("Unet", "tu-resnet10t", 3), masks)
    assert "calibration" not in capsys.readouterr().out
    assert not [*tmp_path.glob("*_precision_recall.png")]
