import shutil
from pathlib import Path

import pytest
from made_dense import cityscapes

from razorlight.data import Cityscapes

# cityscapesScripts, helpers/labels.py: train id of ids 0..33, and of 255
TRAIN_IDS = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, *range(6, 16)]
TRAIN_IDS += [255, 255, 16, 17, 18, 255]


@pytest.fixture
def city(tmp_path: Path) -> Path:
    cityscapes(tmp_path)
    return tmp_path


def test_ids_become_train_ids(city: Path) -> None:
    _, mask = Cityscapes(str(city)).samples("val")[0]
    # stripes of 3 pixels hold ids 0..33 and 255
    assert mask[0, ::3].tolist() == TRAIN_IDS


def test_classes_and_colours_of_the_benchmark() -> None:
    data = Cityscapes()
    assert (data.class_names[0], data.class_names[13], data.class_names[18]) == (
        "road",
        "car",
        "bicycle",
    )
    assert (data.palette[0], data.palette[13]) == ((128, 64, 128), (0, 0, 142))


def test_images_of_all_cities_in_order(city: Path) -> None:
    pairs = Cityscapes(str(city)).samples("train").pairs
    assert [image.parent.name for image, _ in pairs] == ["aachen", "aachen", "zurich", "zurich"]
    assert all(mask.stem == f"{image.stem[:-12]}_gtFine_labelIds" for image, mask in pairs)


def test_zips_as_they_are_given_out(city: Path) -> None:
    base = city / "cityscapes"
    for kind in ("leftImg8bit", "gtFine"):
        shutil.make_archive(str(base / f"{kind}_trainvaltest"), "zip", base, kind)
        shutil.rmtree(base / kind)
    assert len(Cityscapes(str(city)).samples("val")) == 2
