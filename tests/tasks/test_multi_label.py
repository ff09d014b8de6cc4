"""Images with any number of classes: loss and scores beside those of torch and by hand."""

import csv

import pytest
import torch
from lightning.pytorch import seed_everything
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_f1_score,
)

from razorlight.callbacks import BackRazor
from razorlight.errors import RazorError
from razorlight.tasks import MultiLabelClassificationTask

SHARES = [0.5, 0.25, 0.0]


@pytest.fixture
def tags(classes):
    """Four images, none of which is of the last class."""
    targets = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    classes.dataset.tensors = (classes.dataset.tensors[0], targets)
    classes.class_shares = lambda: SHARES
    return classes


def tagger(**kwargs):
    seed_everything(0, verbose=False)
    return MultiLabelClassificationTask("resnet10t", 3, **kwargs)


def test_loss_is_binary_cross_entropy():
    logits, targets = torch.randn(4, 3), torch.rand(4, 3)
    present = targets > 0.5
    plain = F.binary_cross_entropy_with_logits
    assert torch.equal(tagger().loss(logits, present), plain(logits, present.float()))
    assert torch.equal(tagger().loss(logits, targets), plain(logits, targets))  # mixed images
    weights = [1.0, 2.0, 0.5]
    found = tagger(pos_weight=weights).loss(logits, present)
    expected = plain(logits, present.float(), pos_weight=torch.tensor(weights))
    assert torch.equal(found, expected)
    assert all(name.startswith("net.") for name in tagger(pos_weight=weights).state_dict())


@pytest.mark.parametrize("razor", [[], [BackRazor()]], ids=["dense", "razor"])
def test_scores_are_those_of_each_class(trainer, tags, capsys, tmp_path, razor):
    task, run = tagger(), trainer(callbacks=razor)
    run.fit(task, tags)
    (tested,) = run.test(task, tags)
    predictions = torch.cat(run.predict(task, tags))
    images, targets = tags.dataset.tensors
    with torch.no_grad():
        assert torch.allclose(predictions, task.eval()(images).sigmoid())
    pairs = [(predictions[:, label], targets[:, label].int()) for label in range(3)]
    aps = [binary_average_precision(*pair).item() for pair in pairs[:2]]
    assert tested["test/mAP"] == pytest.approx(sum(aps) / 2)
    scores = [binary_f1_score(*pair).item() for pair in pairs]
    assert tested["test/F1"] == pytest.approx(sum(scores) / 3)
    assert "AP by class" in capsys.readouterr().out
    with (tmp_path / "test_classes.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["class"] for row in rows] == ["sky", "sea", "land"]
    assert [float(row["AP"]) for row in rows[:2]] == pytest.approx(aps)
    assert (rows[2]["AP"], [row["true"] for row in rows]) == ("", ["2", "1", "0"])
    assert [int(row["predicted"]) for row in rows] == (predictions >= 0.5).sum(0).tolist()


def test_weights_of_the_data_reach_the_loss_and_the_checkpoint(trainer, tags, caplog, tmp_path):
    task, run = tagger(pos_weight="auto"), trainer(enable_checkpointing=True)
    with caplog.at_level("INFO"):
        run.fit(task, tags)
    said = "pos_weight by the shares of the training data: 1 land, 1 sky, 3 sea"
    assert caplog.messages.count(said) == 1
    logits, present = torch.randn(4, 3), torch.rand(4, 3) > 0.5
    weights = torch.tensor([1.0, 3.0, 1.0])
    expected = F.binary_cross_entropy_with_logits(logits, present.float(), pos_weight=weights)
    assert torch.isclose(task.loss(logits, present), expected)
    run.save_checkpoint(tmp_path / "end.ckpt")
    again = tagger(pos_weight="auto")
    trainer().validate(again, tags, ckpt_path=tmp_path / "end.ckpt")
    assert torch.equal(again.loss(logits, present), task.loss(logits, present))


def test_refused(trainer, classes):
    with pytest.raises(RazorError, match="num_classes is 1; it must be 2 or more"):
        MultiLabelClassificationTask("resnet10t", 1)
    with pytest.raises(RazorError, match="pos_weight: 1 given, for 3 classes"):
        tagger(pos_weight=[1.0])
    with pytest.raises(RazorError, match=r"pos_weight: auto asks the data module for class_shares"):
        trainer().fit(tagger(pos_weight="auto"), classes)
