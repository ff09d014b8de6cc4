"""Rare classes: weights of the loss by the training data, and images drawn by their classes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from PIL import Image
from torch.nn import functional as F

from razorlight.callbacks import BackRazor
from razorlight.data import CIFAR10, ImageFolder, SegmentationFolder
from razorlight.errors import RazorError
from razorlight.tasks import ClassificationTask, SegmentationTask

COUNTS = {"birch": 3, "oak": 12}
WEIGHTS = [15 / 2 / 3, 15 / 2 / 12]


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, count in COUNTS.items():
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(
                    folder / f"{number}.png"
                )
    return str(tmp_path / "photos")


@pytest.fixture
def scenes(tmp_path):
    """An eighth of each mask is of class 1, another one counts for nothing."""
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), np.uint8)
    mask[:4], mask[4:8] = 1, 255
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / "scenes" / kind / split).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            image.save(tmp_path / "scenes" / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(tmp_path / "scenes" / "masks" / split / f"{number}.png")
    return str(tmp_path / "scenes")


def photos_of(root, **options):
    return ImageFolder(root, image_size=32, num_workers=0, **{"batch_size": 5, **options})


def scenes_of(root):
    return SegmentationFolder(
        root, ["background", "roof"], image_size=32, batch_size=4, num_workers=0
    )


def classifier(weights="auto", **options):
    seed_everything(0, verbose=False)
    return ClassificationTask("resnet10t", 2, class_weights=weights, **options)


def segmenter(weights="auto", **options):
    seed_everything(0, verbose=False)
    return SegmentationTask("Unet", "tu-resnet10t", 2, class_weights=weights, **options)


def loss_weights(task):
    (weights,) = {tuple(m.weight.tolist()) for m in task.modules() if hasattr(m, "label_smoothing")}
    return weights


def test_weights_of_images_are_said_and_reach_the_loss(trainer, photos, caplog):
    task = classifier()
    assert loss_weights(task) == (1, 1)
    with caplog.at_level("INFO"):
        trainer().fit(task, photos_of(photos))
    assert loss_weights(task) == pytest.approx(WEIGHTS)
    said = "class_weights by the shares of the training data: 0.625 oak, 2.5 birch"
    assert caplog.messages.count(said) == 1
    logits, targets = torch.randn(8, 2), torch.randint(0, 2, (8,))
    expected = F.cross_entropy(logits, targets, weight=torch.tensor(WEIGHTS))
    assert task.loss(logits, targets).item() == pytest.approx(expected.item())
    shares = F.one_hot(targets, 2).float()  # as MixUp makes them
    assert torch.isfinite(task.loss(logits, shares))


@pytest.mark.parametrize("recipe", [None, "balanced"])
def test_auto_trains_as_the_same_numbers_do(trainer, photos, recipe):
    razor = [BackRazor(recipe)] if recipe else []
    trained = []
    for weights in ("auto", WEIGHTS):
        task = classifier(weights)
        trainer(callbacks=razor, max_epochs=2).fit(task, photos_of(photos))
        trained.append(torch.cat([p.detach().flatten() for p in task.parameters()]))
    assert torch.equal(*trained)
    plain = classifier(None)
    trainer(callbacks=razor, max_epochs=2).fit(plain, photos_of(photos))
    assert not torch.equal(
        trained[0], torch.cat([p.detach().flatten() for p in plain.parameters()])
    )


@pytest.mark.parametrize("loss", ["ce", "ce+dice"])
def test_weights_of_pixels_leave_out_those_to_ignore(trainer, scenes, loss):
    task = segmenter(loss=loss)
    trainer().fit(task, scenes_of(scenes))
    assert loss_weights(task) == pytest.approx([28 / 2 / 24, 28 / 2 / 4])


def test_a_checkpoint_holds_the_weights_for_other_stages(trainer, photos, tmp_path):
    task = classifier()
    run = trainer(enable_checkpointing=True)
    run.fit(task, photos_of(photos))
    run.save_checkpoint(tmp_path / "end.ckpt")
    (validated,) = run.validate(task, photos_of(photos))
    again = classifier()
    (later,) = trainer().validate(again, photos_of(photos), ckpt_path=tmp_path / "end.ckpt")
    assert loss_weights(again) == loss_weights(task)
    assert later["val/loss"] == pytest.approx(validated["val/loss"])
    assert not any("weight" in name and "net." not in name for name in task.state_dict())


def test_data_that_count_nothing_are_refused(trainer, photos, classes):
    with pytest.raises(
        RazorError, match=r"auto asks the data module for label_counts\(\), and Tiny"
    ):
        trainer().fit(ClassificationTask("resnet10t", 3, class_weights="auto"), classes)
    with pytest.raises(RazorError, match=r"class_weights: 3 given, for 2 classes"):
        classifier([1.0, 2.0, 3.0])


def test_a_file_that_cannot_be_read_is_a_line(trainer, scenes):
    data = scenes_of(scenes)
    data.setup("fit")
    Path(scenes, "masks", "train", "0.png").write_text("no mask")
    with pytest.raises(RazorError, match="cannot read mask"):
        trainer().fit(segmenter(), data)


def drawn(data, epochs=40):
    data.setup("fit")
    loader = data.train_dataloader()
    return Counter(int(y) for _ in range(epochs) for _, labels in loader for y in labels)


def test_balanced_draws_all_classes_alike(photos):
    torch.manual_seed(0)
    once = drawn(photos_of(photos))
    assert once == {0: 40 * 3, 1: 40 * 12}
    balanced = drawn(photos_of(photos, balanced=True))
    assert balanced.total() == once.total()
    assert balanced[0] / balanced.total() == pytest.approx(0.5, abs=0.07)


def test_balanced_draws_anew_in_each_epoch_and_alike_with_a_seed(photos):
    data = photos_of(photos, balanced=True)
    data.setup("fit")
    loader = data.train_dataloader()
    epochs = []
    for seed in (0, None, 0):
        if seed is not None:
            torch.manual_seed(seed)
        epochs.append([*loader.sampler])
    assert epochs[0] == epochs[2] != epochs[1]


def test_balanced_where_classes_are_read_with_the_images(tmp_path, monkeypatch):
    class Few(CIFAR10):
        num_classes = 2

        def samples(self, split):
            images = torch.zeros(10, 3, 32, 32, dtype=torch.uint8)
            return [(image, int(index == 0)) for index, image in enumerate(images)]

    torch.manual_seed(0)
    data = Few(str(tmp_path), batch_size=5, num_workers=0, balanced=True)
    monkeypatch.setattr(Few, "class_names", ("a", "b"))
    counts = drawn(data)
    assert counts[1] / counts.total() == pytest.approx(0.5, abs=0.07)
    assert data.label_counts() == {0: 9, 1: 1}


def test_validation_stays_as_it_is(photos):
    data = photos_of(photos, balanced=True)
    data.setup("fit")
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 15
