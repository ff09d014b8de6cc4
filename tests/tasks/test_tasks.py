"""All tasks through fit, validate, test and predict; what they train, and what they leave."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from razorlight.errors import RazorError
from razorlight.tasks import ClassificationTask, DepthTask, SegmentationTask
from razorlight.tasks.segmentation import classes_present

NORM_KEYS = ("running_mean", "running_var", "num_batches_tracked")


def classifier(**kwargs):
    return ClassificationTask("resnet10t", 3, **kwargs)


def segmenter(**kwargs):
    arguments = {"architecture": "Unet", "encoder": "tu-resnet10t", "num_classes": 3, **kwargs}
    return SegmentationTask(**arguments)


def ranger(**kwargs):
    return DepthTask("Unet", "tu-resnet10t", **kwargs)


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("make", "data", "metrics", "shape", "dtype"),
    [
        (classifier, "classes", {"accuracy"}, (2, 3), torch.float32),
        (segmenter, "masks", {"mIoU", "pixel_accuracy"}, (2, 32, 32), torch.int64),
        (ranger, "depths", {"AbsRel", "RMSE", "delta1"}, (2, 32, 32), torch.float32),
    ],
)
def test_fit_validate_test_predict(request, trainer, make, data, metrics, shape, dtype):
    data, task, run = request.getfixturevalue(data), make(), trainer()
    run.fit(task, data)
    logged = {f"val/{name}" for name in metrics} | {"val/loss", "train/loss", "train/loss_epoch"}
    assert run.callback_metrics.keys() == logged
    (validated,) = run.validate(task, data)
    assert validated["val/loss"] == pytest.approx(run.callback_metrics["val/loss"].item())
    (tested,) = run.test(task, data)
    assert tested.keys() == {f"test/{name}" for name in metrics} | {"test/loss"}
    predictions = run.predict(task, data)
    assert [(p.shape, p.dtype) for p in predictions] == [(shape, dtype)] * 2


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


@pytest.mark.parametrize("loss", ["ce", "dice", "focal", "lovasz", "ce+dice"])
def test_losses_ignore_void(loss):
    task = segmenter(loss=loss)
    targets = torch.randint(0, 3, (2, 32, 32))
    targets[:, :16] = 255
    logits = torch.randn(2, 3, 32, 32)
    other = logits.clone()
    other[:, :, :16] = torch.randn(2, 3, 16, 32)
    assert torch.isclose(task.loss(logits, targets), task.loss(other, targets))
    assert not torch.isclose(task.loss(logits, targets), task.loss(-logits, targets))


@pytest.mark.parametrize("other", ["dice", "lovasz"])
def test_sum_of_losses(other):
    logits, targets = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    names = ("ce", other, f"ce+{other}")
    ce, second, both = (segmenter(loss=name).loss(logits, targets) for name in names)
    assert torch.isclose(both, ce + second)


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
        ({"window": 0}, "window is 0; it must be 1 pixel or more"),
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


def test_second_head_learns_which_classes_are_there(trainer, masks):
    task = segmenter(aux_weight=0.5).eval()  # without the head's dropout
    images, targets = masks.dataset.tensors
    present = classes_present(targets, 3, 255)
    assert present.tolist() == [[1, 1, 0]] * 4
    logits, presence = task.net(images)
    expected = task.loss(logits, targets)
    expected += 0.5 * F.binary_cross_entropy_with_logits(presence, present)
    assert torch.isclose(task.training_loss(images, targets), expected)
    before = deepcopy(task.state_dict())
    trainer().fit(task, masks)
    assert "net.classification_head.3.weight" in changed(before, task.state_dict())


@pytest.mark.parametrize(
    "task",
    [
        SegmentationTask("Linknet", "tu-resnet10t", 3),
        SegmentationTask("Linknet", "tu-resnet10t", 3, aux_weight=1.0),
        DepthTask("Linknet", "tu-resnet10t"),
    ],
    ids=["segmentation", "with a second head", "depth"],
)
def test_images_that_the_stride_does_not_divide(task):
    task.eval()
    images = torch.randn(1, 3, 50, 33)
    padded = torch.zeros(1, 3, 64, 64)
    padded[:, :, :50, :33] = images
    with torch.no_grad():
        assert torch.equal(task(images), task(padded)[..., :50, :33])
    assert torch.isfinite(task.training_loss(images, torch.ones(1, 50, 33).long()))


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
