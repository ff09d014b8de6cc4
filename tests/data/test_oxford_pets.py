from pathlib import Path

import pytest
from made_dense import oxford_pet_trimaps, stripes

from razorlight.data import OxfordPetTrimaps
from razorlight.errors import RazorError


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    oxford_pet_trimaps(tmp_path)
    return tmp_path


def test_trimaps_have_two_classes_and_a_band_that_does_not_count(pets: Path) -> None:
    data = OxfordPetTrimaps(str(pets), num_workers=0)
    assert data.class_names == ("pet", "background")
    _, mask = data.samples("test")[0]
    assert mask.tolist() == stripes((1, 255, 0, 255, 1)).tolist()


def test_train_and_val_do_not_overlap(pets: Path) -> None:
    data = OxfordPetTrimaps(str(pets), val_fraction=0.25)
    train, val = (data.samples(split).indices for split in ("train", "val"))
    assert sorted(train + val) == list(range(8))


def test_missing(tmp_path: Path) -> None:
    data = OxfordPetTrimaps(str(tmp_path), download=False)
    for step in (data.prepare_data, lambda: data.setup("fit")):
        with pytest.raises(RazorError, match=f"{tmp_path.name}.*download: true") as caught:
            step()
        assert "\n" not in str(caught.value)


def test_missing_image_is_named(pets: Path) -> None:
    (pets / "oxford-iiit-pet" / "images" / "Abyssinian_9.jpg").unlink()
    with pytest.raises(RazorError, match=r"1 files are missing, first .*Abyssinian_9\.jpg"):
        OxfordPetTrimaps(str(pets)).setup("test")
