from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from razorlight.data import OxfordPets
from razorlight.errors import RazorError

Writer = Callable[..., Path]


@pytest.fixture
def pets(tmp_path: Path, write_jpeg: Writer, write_mask: Writer) -> Path:
    base = tmp_path / "oxford-iiit-pet"
    for part, numbers in (("trainval", range(1, 9)), ("test", range(9, 12))):
        lines = []
        for number in numbers:
            breed, name = (1, "Abyssinian") if number % 2 else (37, "yorkshire_terrier")
            stem = f"{name}_{number}"
            write_jpeg(base / "images" / f"{stem}.jpg", 40, 50)
            trimap = np.full((40, 50), 2)
            trimap[10:30, 10:30] = 3
            trimap[12:28, 12:28] = 1
            write_mask(base / "annotations" / "trimaps" / f"{stem}.png", trimap)
            lines.append(f"{stem} {breed} {1 + number % 2} {number}\n")
        (base / "annotations" / f"{part}.txt").write_text("".join(lines))
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


def test_trimaps(pets: Path) -> None:
    data = OxfordPets(
        str(pets), "trimap", image_size=50, val_fraction=0.25, batch_size=3, num_workers=0
    )
    assert data.class_names == ("pet", "background")
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    images, masks = next(iter(data.train_dataloader()))
    assert images.shape == (3, 3, 50, 50)
    assert masks.shape == (3, 50, 50)
    assert masks.dtype == torch.int64
    _, masks = next(iter(data.test_dataloader()))
    # at 50 pixels a 40x50 image keeps its size; the last ten rows are padding
    assert masks[0, 20, 20] == 0
    assert masks[0, 0, 0] == 1
    assert masks[0, 10, 10] == masks[0, 45, 0] == 255


def test_train_and_val_do_not_overlap(pets: Path) -> None:
    data = OxfordPets(str(pets), val_fraction=0.25)
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
