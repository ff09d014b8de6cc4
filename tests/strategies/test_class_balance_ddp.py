"""Rare classes in two processes: one set of weights, and classes that come alike in both."""

import numpy as np
import pytest
from data.made_dense import stripes, write_jpeg, write_mask
from lightning.pytorch import Callback, seed_everything
from runs import parameters, trainer

from razorlight.data import ImageFolder, SegmentationFolder
from razorlight.errors import RazorError
from razorlight.tasks import ClassificationTask, SegmentationTask


class Labels(Callback):
    """The classes of the training images that this process met."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen += batch[1].flatten().tolist()


def trained(task, data, *callbacks):
    """Parameters after a fit, and the weights of the loss."""
    run = trainer("exact", callbacks, devices=2, strategy="ddp", max_epochs=6)
    run.fit(task, data)
    (weights,) = {tuple(m.weight.tolist()) for m in task.modules() if hasattr(m, "label_smoothing")}
    return parameters(task), weights


def classified(root):
    seed_everything(0, verbose=False)
    data = ImageFolder(root, image_size=32, batch_size=4, num_workers=0, balanced=True)
    labels = Labels()
    task = ClassificationTask("resnet10t", 2, class_weights="auto", freeze_norm=True)
    return *trained(task, data, labels), labels.seen


def segmented(root):
    """What a process tells of a fit: parameters and weights, or the line that ended it."""
    seed_everything(0, verbose=False)
    data = SegmentationFolder(root, ["a", "b"], image_size=32, batch_size=2, num_workers=0)
    data.setup("fit")
    try:
        return trained(SegmentationTask("Unet", "tu-resnet10t", 2, class_weights="auto"), data)
    except RazorError as error:
        return str(error)


@pytest.fixture
def photos(tmp_path):
    for split in ("train", "val"):
        for name, count in (("birch", 8), ("oak", 24)):
            for number in range(count):
                write_jpeg(tmp_path / split / name / f"{number}.jpg", 32, 32)
    return str(tmp_path)


@pytest.fixture
def scenes(tmp_path):
    for split in ("train", "val"):
        for number in range(4):
            write_jpeg(tmp_path / "images" / split / f"{number}.jpg", 32, 32)
            write_mask(tmp_path / "masks" / split / f"{number}.png", stripes((0, 0, 0, 1), 32, 32))
    return tmp_path


def test_images_are_drawn_alike_and_weighed_alike(processes, photos):
    first, second = processes.run(classified, photos)
    assert np.array_equal(first[0], second[0])
    assert first[1] == second[1] == pytest.approx((2, 2 / 3))
    # 6 epochs of 32 images, half of them in each process
    assert len(first[2]) == len(second[2]) == 6 * 16
    drawn = first[2] + second[2]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.12)
    assert first[2] != second[2]


def test_pixels_are_counted_once_for_all(processes, scenes):
    first, second = processes.run(segmented, str(scenes))
    assert np.array_equal(first[0], second[0])
    assert first[1] == second[1] == pytest.approx((2 / 3, 2))


def counted_wrong(root):
    """As :func:`segmented`, but a mask is spoilt once the data are set up."""
    SegmentationFolder.label_counts = _fails
    return segmented(root)


def _fails(self):
    raise RazorError("cannot read mask 0.png")


def test_a_mask_that_cannot_be_read_ends_all_processes(processes, scenes):
    try:
        said = processes.run(counted_wrong, str(scenes))
    finally:
        processes.run(_restore)
    assert said == ["cannot read mask 0.png"] * 2


def _restore():
    del SegmentationFolder.label_counts
