"""Both tasks through fit, validate, test and predict; what they train, and what they leave."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from razorlight.errors import RazorError
from razorlight.tasks import ClassificationTask, SegmentationTask

NORM_KEYS = ("running_mean", "running_var", "num_batches_tracked")


def classifier(**kwargs):
    return ClassificationTask("resnet10t", 3, **kwargs)


def segmenter(**kwargs):
    arguments = {"architecture": "Unet", "encoder": "tu-resnet10t", "num_classes": 3, **kwargs}
    return SegmentationTask(**arguments)


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("make", "data", "metrics", "shape"),
    [
        (classifier, "classes", {"accuracy"}, (2,)),
        (segmenter, "masks", {"mIoU", "pixel_accuracy"}, (2, 32, 32)),
    ],
)
def test_fit_validate_test_predict(request, trainer, make, data, metrics, shape):
    data, task, run = request.getfixturevalue(data), make(), trainer()
    run.fit(task, data)
    logged = {f"val/{name}" for name in metrics} | {"val/loss", "train/loss"}
    assert run.callback_metrics.keys() == logged
    (validated,) = run.validate(task, data)
    assert validated["val/loss"] == pytest.approx(run.callback_metrics["val/loss"].item())
    (tested,) = run.test(task, data)
    assert tested.keys() == {f"test/{name}" for name in metrics} | {"test/loss"}
    predictions = run.predict(task, data)
    assert [(p.shape, p.dtype) for p in predictions] == [(shape, torch.int64)] * 2


def test_accuracy_is_the_share_of_hits(trainer, classes):
    task = classifier()
    (tested,) = trainer().test(task, classes)
    images, targets = classes.dataset.tensors
    with torch.no_grad():
        hits = task.eval()(images).argmax(1) == targets
    assert tested["test/accuracy"] == hits.float().mean()


def test_void_and_absent_classes_leave_the_scores_alone(trainer, masks):
    task = segmenter()
    # logits that name class 0 everywhere
    torch.nn.init.zeros_(task.net.segmentation_head[0].weight)
    with torch.no_grad():
        task.net.segmentation_head[0].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    (tested,) = trainer().test(task, masks)
    targets = masks.dataset.tensors[1]
    share = ((targets == 0).sum() / (targets != 255).sum()).item()
    assert tested["test/pixel_accuracy"] == pytest.approx(share)
    assert tested["test/mIoU"] == pytest.approx(share / 2)


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_table_of_classes(trainer, masks, capsys, verb):
    getattr(trainer(), verb)(segmenter(), masks)
    table = [line for line in capsys.readouterr().out.splitlines() if "IoU by class" in line]
    assert len(table) == 1


def test_table_of_classes_in_figures(trainer, masks, capsys):
    (tested,) = trainer().test(segmenter(), masks)
    printed = capsys.readouterr().out.splitlines()
    rows = [[c.strip() for c in line.split("│")[1:4]] for line in printed if line.startswith("│")]
    by_class = {row[0]: row[1:] for row in rows}
    assert {"sky", "sea", "land"} <= by_class.keys()
    ious = [float(by_class[n][0]) for n in masks.class_names if by_class[n][0] != "-"]
    assert sum(ious) / len(ious) == pytest.approx(tested["test/mIoU"], abs=1e-3)
    assert sum(float(by_class[n][1]) for n in masks.class_names) == pytest.approx(100, abs=0.02)
    assert by_class["land"][1] == "0.00"
    assert max(map(len, printed)) <= 80


def test_no_table_within_fit_nor_names_without_data_module(trainer, masks, capsys):
    run, task = trainer(), segmenter()
    run.fit(task, masks.train_dataloader(), masks.val_dataloader())
    assert "IoU by class" not in capsys.readouterr().out
    run.test(task, masks.test_dataloader())
    assert "IoU by class" in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["ce", "dice", "focal", "ce+dice"])
def test_losses_ignore_void(loss):
    task = segmenter(loss=loss)
    targets = torch.randint(0, 3, (2, 32, 32))
    targets[:, :16] = 255
    logits = torch.randn(2, 3, 32, 32)
    other = logits.clone()
    other[:, :, :16] = torch.randn(2, 3, 16, 32)
    assert torch.isclose(task.loss(logits, targets), task.loss(other, targets))
    assert not torch.isclose(task.loss(logits, targets), task.loss(-logits, targets))


def test_sum_of_losses():
    logits, targets = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    ce, dice, both = (segmenter(loss=n).loss(logits, targets) for n in ("ce", "dice", "ce+dice"))
    assert torch.isclose(both, ce + dice)


def test_class_weights_reach_cross_entropy_and_no_checkpoint():
    task = segmenter(class_weights=[1.0, 2.0, 0.0])
    logits, targets = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    expected = F.cross_entropy(logits, targets, weight=torch.tensor([1.0, 2.0, 0.0]))
    assert torch.equal(task.loss(logits, targets), expected)
    assert all(name.startswith("net.") for name in task.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weights": [1.0]}, "class_weights: 1 given, for 3 classes"),
        ({"class_weights": [1.0] * 3, "loss": "dice"}, "loss dice takes none"),
        ({"freeze": ["encodr"]}, "freeze: pattern 'encodr' matches nothing"),
        ({"freeze": ["net"]}, "freeze: nothing is left to train"),
    ],
)
def test_arguments_refused(arguments, message):
    with pytest.raises(RazorError, match=message):
        segmenter(**arguments)


def test_label_smoothing():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = F.cross_entropy(logits, targets, label_smoothing=0.2)
    assert torch.equal(classifier(label_smoothing=0.2).loss(logits, targets), expected)


def test_frozen_encoder_stays_as_it_is(trainer, masks):
    task = segmenter(freeze=["net.encoder"])
    before = deepcopy(task.state_dict())
    trainer().fit(task, masks)
    moved = changed(before, task.state_dict())
    assert not [name for name in moved if name.startswith("net.encoder")]
    assert "net.segmentation_head.0.weight" in moved
    assert any(name.startswith("net.decoder") and name.endswith("running_mean") for name in moved)


def test_frozen_norms_stay_as_they_are(trainer, classes):
    task = classifier(freeze_norm=True)
    norms = [n for n, m in task.named_modules() if isinstance(m, _BatchNorm)]
    before = deepcopy(task.state_dict())
    trainer(max_epochs=2).fit(task, classes)
    moved = changed(before, task.state_dict())
    assert not [name for name in moved if name.rpartition(".")[0] in norms]
    assert "net.conv1.0.weight" in moved
    assert not any(task.get_submodule(name).training for name in norms)
    assert task.net.training


def test_layer_norms_freeze_too():
    task = ClassificationTask("test_vit", 3, freeze_norm=True)
    frozen = {name for name, p in task.named_parameters() if not p.requires_grad}
    assert "net.blocks.0.norm1.weight" in frozen
    assert frozen == {n for n, _ in task.named_parameters() if ".norm" in n or ".fc_norm" in n}


def test_norms_move_unless_frozen(trainer, classes):
    task = classifier()
    before = deepcopy(task.state_dict())
    trainer().fit(task, classes)
    assert {n for n in before if n.endswith(NORM_KEYS)} <= changed(before, task.state_dict())


def test_only_trainable_parameters_reach_the_optimizer():
    task = classifier(freeze=["net.layer*"], optimizer=partial(SGD, lr=0.5))
    (group,) = task.configure_optimizers().param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in task.parameters() if p.requires_grad}
    assert group["lr"] == 0.5


def test_checkpoint_holds_the_network_and_loads(trainer, classes, tmp_path):
    task, run = classifier(), trainer(enable_checkpointing=True)
    run.fit(task, classes)
    run.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ClassificationTask.load_from_checkpoint(
        tmp_path / "last.ckpt", model="resnet10t", num_classes=3
    )
    assert not changed(task.state_dict(), loaded.state_dict())
    again = classifier(weights=str(tmp_path / "last.ckpt"))
    assert not changed(task.state_dict(), again.state_dict())
