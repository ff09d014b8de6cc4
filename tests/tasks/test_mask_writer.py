"""The pictures that MaskWriter leaves in the run's folder."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image

from razorlight.callbacks.mask_writer import GUTTER, VOID, MaskWriter
from razorlight.errors import RazorError
from razorlight.tasks import ClassificationTask

SIZE = 32


class OneClass(LightningModule):
    """Predicts class 2 everywhere, but class 1 in the second row."""

    def validation_step(self, batch, batch_idx):
        predicted = torch.full(batch[0].shape[::2], 2).unsqueeze(1).repeat(1, SIZE, 1)
        predicted[:, 1] = 1
        return predicted

    predict_step = validation_step


def test_validation_shows_image_truth_and_prediction(trainer, masks, tmp_path):
    trainer(callbacks=[MaskWriter(count=3)]).validate(OneClass(), masks)
    paths = sorted((tmp_path / "masks").iterdir())
    assert [path.name for path in paths] == ["val_0.png", "val_1.png", "val_2.png"]
    image, target = masks.dataset[2]
    picture = np.asarray(Image.open(paths[2]))
    assert picture.shape == (SIZE, 3 * SIZE + 2 * GUTTER, 3)

    shown, truth, predicted = (picture[:, start : start + SIZE] for start in (0, 36, 72))
    mean, std = (np.array(value).reshape(3, 1, 1) for value in (masks.mean, masks.std))
    undone = np.clip(np.rint((image.numpy() * std + mean) * 255), 0, 255)
    np.testing.assert_allclose(shown.transpose(2, 0, 1), undone, atol=1)

    colours = np.array([*masks.palette, *[VOID] * 253])
    np.testing.assert_array_equal(truth, colours[target])
    assert (truth[0] == VOID).all()
    assert (predicted[1] == masks.palette[1]).all()
    assert (predicted[2:] == masks.palette[2]).all()


def test_predictions_are_indexed_pngs_by_place_in_the_data(trainer, masks, tmp_path):
    trainer(callbacks=[MaskWriter()]).predict(OneClass(), masks)
    paths = sorted((tmp_path / "masks").iterdir())
    assert [path.name for path in paths] == [f"{n:05}.png" for n in range(4)]
    picture = Image.open(paths[3])
    assert picture.mode == "P"
    assert (np.asarray(picture)[:2] == [[2], [1]]).all()
    assert picture.convert("RGB").getpixel((0, 0)) == masks.palette[2]


def test_sanity_check_writes_nothing(trainer, masks, tmp_path):
    class Failing(OneClass):
        def on_train_start(self):
            raise KeyError("stop")

        def training_step(self, batch, batch_idx):
            raise AssertionError

        def configure_optimizers(self):
            return None

    with pytest.raises(KeyError, match="stop"):
        trainer(callbacks=[MaskWriter()]).fit(Failing(), masks)
    assert not (tmp_path / "masks").exists()


def test_data_without_palette_are_refused(trainer, masks):
    run = trainer(callbacks=[MaskWriter()])
    with pytest.raises(RazorError, match="no palette; leave MaskWriter out"):
        run.validate(OneClass(), masks.val_dataloader())


def test_class_per_image_is_refused(trainer, classes):
    run = trainer(callbacks=[MaskWriter()])
    with pytest.raises(RazorError, match="must return class ids"):
        run.predict(ClassificationTask("resnet10t", 3), classes)


def test_count_below_one_is_refused():
    with pytest.raises(RazorError, match="count must be at least 1, got 0"):
        MaskWriter(count=0)
