from pathlib import Path

import pytest
import torch
from made_dense import oxford_pet_trimaps, stripes

from razorlight.data import OxfordPets, OxfordPetTrimaps
from razorlight.errors import RazorError


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    oxford_pet_trimaps(tmp_path)
    return tmp_path


def test_breeds(pets: Path) -> None:
    data = OxfordPets(str(pets), image_size=32, val_fraction=0.25, batch_size=2, num_workers=0)
    assert data.num_classes == 37
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert len(data.train_dataloader().dataset) == 6
    assert len(data.val_dataloader().dataset) == 2
    assert torch.cat([y for _, y in data.test_dataloader()]).tolist() == [0, 36, 0]


def test_trimaps_have_two_classes_and_a_band_that_does_not_count(pets: Path) -> None:
    data = OxfordPetTrimaps(str(pets), num_workers=0)
    assert data.class_names == ("pet", "background")
    _, mask = data.samples("test")[0]
    assert mask.tolist() == stripes((1, 255, 0, 255, 1)).tolist()


@pytest.mark.parametrize("kind", [OxfordPets, OxfordPetTrimaps])
def test_train_and_val_do_not_overlap(
    pets: Path, kind: type[OxfordPets] | type[OxfordPetTrimaps]
) -> None:
    data = kind(str(pets), val_fraction=0.25)
    train, val = (data.samples(split).indices for split in ("train", "val"))
    assert sorted(train + val) == list(range(8))


def test_missing(tmp_path: Path) -> None:
    data = OxfordPets(str(tmp_path), download=False)
    for step in (data.prepare_data, lambda: data.setup("fit")):
        with pytest.raises(RazorError, match=f"OxfordPets: .*{tmp_path.name}.*download") as caught:
            step()
        assert "\n" not in str(caught.value)


def test_missing_image_is_named_when_read(pets: Path) -> None:
    (pets / "oxford-iiit-pet" / "images" / "Abyssinian_9.jpg").unlink()
    data = OxfordPets(str(pets), num_workers=0)
    data.setup("test")
    with pytest.raises(RazorError, match=r"Abyssinian_9\.jpg"):
        list(data.test_dataloader())
