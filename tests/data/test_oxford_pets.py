from pathlib import Path

import pytest
import torch
from made_classification import make_oxford_pets

from razorlight.data import OxfordPetTrimaps
from razorlight.errors import RazorError


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    make_oxford_pets(tmp_path)
    return tmp_path


def test_trimaps(pets: Path) -> None:
    data = OxfordPetTrimaps(str(pets), image_size=30, batch_size=3, num_workers=0)
    assert data.class_names == ("pet", "background")
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    images, masks = next(iter(data.train_dataloader()))
    assert images.shape == (3, 3, 30, 30)
    assert masks.shape == (3, 30, 30)
    assert masks.dtype == torch.int64
    _, masks = next(iter(data.test_dataloader()))
    # at 30 pixels a 24x30 image keeps its size; the last six rows are padding
    assert masks[0, 12, 12] == 0
    assert masks[0, 0, 0] == 1
    assert masks[0, 5, 5] == masks[0, 29, 0] == 255


def test_train_and_val_do_not_overlap(pets: Path) -> None:
    data = OxfordPetTrimaps(str(pets), val_fraction=0.25)
    train, val = (data.samples(split).indices for split in ("train", "val"))
    assert sorted(train + val) == list(range(37))


def test_missing(tmp_path: Path) -> None:
    data = OxfordPetTrimaps(str(tmp_path), download=False)
    message = f"OxfordPetTrimaps: .*{tmp_path.name}.*download"
    for step in (data.prepare_data, lambda: data.setup("fit")):
        with pytest.raises(RazorError, match=message) as caught:
            step()
        assert "\n" not in str(caught.value)


def test_missing_image_is_named_when_read(pets: Path) -> None:
    (pets / "oxford-iiit-pet" / "images" / "a_breed09_1.jpg").unlink()
    data = OxfordPetTrimaps(str(pets), num_workers=0)
    data.setup("test")
    with pytest.raises(RazorError, match=r"a_breed09_1\.jpg"):
        list(data.test_dataloader())
