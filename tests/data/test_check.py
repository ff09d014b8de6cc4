"""All that can be wrong with data is found before a run, by reading each file once."""

import shutil

import made_classification
import made_dense
import numpy as np
import pytest
from made_classification import accept_made_files, write_image
from PIL import Image

import razorlight.data
from razorlight.data import DepthFolder, ImageFolder, SegmentationFolder
from razorlight.data.check import check_data
from razorlight.data.class_balance import balancing_weights
from razorlight.data.targets import count_labels

MAKERS = {**made_classification.MAKERS, **made_dense.MAKERS}


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for split, counts in (("train", {"oak": 6, "rock": 2}), ("val", {"oak": 1, "rock": 1})):
        for name, count in counts.items():
            for number in range(count):
                write_image(root / split / name / f"{split}_{name}_{number}.jpg")
    return root


@pytest.fixture
def scenes(tmp_path):
    root = tmp_path / "scenes"
    for split in ("train", "val"):
        for number, values in enumerate(([0, 0, 0, 1], [0, 255])):
            made_dense.write_jpeg(root / "images" / split / f"{number}.jpg", 8, 8 + number)
            mask = made_dense.stripes(values, 8, 8 + number)
            made_dense.write_mask(root / "masks" / split / f"{number}.png", mask)
    return root


def of_photos(root, **kwargs):
    return check_data(ImageFolder(str(root), num_workers=0, **kwargs))


def of_scenes(root, classes=("background", "roof")):
    return check_data(SegmentationFolder(str(root), [*classes], num_workers=0))


def test_sound_photographs(photos):
    found = of_photos(photos)
    assert (found.faults, found.warnings) == ([], [])
    train = found.splits["train"]
    assert (train.samples, train.labels, train.modes) == (8, {0: 6, 1: 2}, {"RGB": 8})
    assert train.sizes == {(24, 30): 8}
    assert found.class_weights == balancing_weights([6, 2]) == [2 / 3, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_mean_and_deviation_are_those_of_the_values(tmp_path, workers):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (4, 40, 60, 3), np.uint8)
    for split in ("train", "val"):
        folder = tmp_path / split / "noise"
        folder.mkdir(parents=True)
        for number, image in enumerate(values):
            Image.fromarray(image).save(folder / f"{number}.png")
    facts = check_data(ImageFolder(str(tmp_path), num_workers=workers)).splits["train"]
    scaled = values.reshape(-1, 3) / 255
    assert facts.mean == pytest.approx(scaled.mean(0).tolist())
    assert facts.std == pytest.approx(scaled.std(0).tolist())


def test_what_fit_would_stumble_over_is_a_fault(photos):
    (photos / "train" / "oak" / "train_oak_0.jpg").write_text("no image")
    whole = (photos / "val" / "rock" / "val_rock_0.jpg").read_bytes()
    (photos / "val" / "rock" / "val_rock_0.jpg").write_bytes(whole[: len(whole) // 2])
    found = of_photos(photos)
    assert [("train_oak_0" in line, "val_rock_0" in line) for line in found.faults] == [
        (True, False),
        (False, True),
    ]
    assert found.splits["train"].usable == 7
    assert found.warnings == ["val: no sample is of 'rock'"]


def test_a_split_that_cannot_be_found_is_a_fault_and_the_others_are_read(photos):
    write_image(photos / "val" / "emu" / "0.jpg")
    found = of_photos(photos)
    assert found.faults == [f"{photos / 'val'} has classes that train lacks: emu"]
    assert found.splits["train"].samples == 8
    lost = of_photos(photos / "nowhere")
    assert lost.faults == [f"no folder {photos / 'nowhere'}; {ImageFolder.remedy}"]
    assert (lost.splits, lost.class_names) == ({}, ())


def test_what_is_only_wrong_in_test_stops_no_fit(photos):
    write_image(photos / "test" / "oak" / "0.jpg").write_text("no image")
    found = of_photos(photos)
    assert found.faults == []
    [line] = found.warnings
    assert line.startswith("test: cannot read image ")


def test_one_file_in_two_splits(photos):
    source = photos / "train" / "oak" / "train_oak_0.jpg"
    shutil.copy(source, photos / "val" / "rock" / "another.jpg")
    shutil.copy(source, photos / "train" / "oak" / "again.jpg")
    found = of_photos(photos)
    [line] = found.warnings
    assert line.startswith("train and val share 1 images, first ")
    assert line.endswith("another.jpg")
    assert (found.splits["train"].repeated, found.splits["val"].repeated) == (1, 0)


def test_one_file_with_two_classes(photos):
    oak = photos / "train" / "oak" / "train_oak_0.jpg"
    shutil.copy(oak, photos / "train" / "rock" / "copy.jpg")
    [line] = of_photos(photos).warnings
    assert line.startswith("train: 1 images are there twice, with unlike targets, first ")
    assert line.endswith("train_oak_0.jpg and " + str(photos / "train" / "rock" / "copy.jpg"))


def test_modes_sizes_and_turned_pictures(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (50, 20)).save(photos / "train" / "oak" / "turned.jpg", exif=exif)
    train = of_photos(photos).splits["train"]
    assert train.turned == 1
    assert train.modes == {"RGB": 8, "L": 1}
    assert train.sizes == {(24, 30): 8, (50, 20): 1}


def test_pixels_are_counted_and_ignored_ones_said(scenes):
    found = of_scenes(scenes)
    train = found.splits["train"]
    assert train.labels == {0: 48 + 40, 1: 16, 255: 32}
    assert train.images_with == {0: 2, 1: 1, 255: 1}
    assert train.ignored == 32 / 136
    assert found.class_weights == pytest.approx([104 / 2 / 88, 104 / 2 / 16])
    assert found.faults == []
    # both splits have the same files
    assert [line.split(", first")[0] for line in found.warnings] == ["train and val share 2 images"]
    unseen = of_scenes(scenes, ("background", "roof", "road")).warnings[0]
    assert unseen == "train: no sample is of 'road'; 24% of the pixels are ignored"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask: made_dense.write_mask(mask, np.full((8, 8), 7)), "label 7 is outside 0..1"),
        (lambda mask: made_dense.write_mask(mask, np.zeros((9, 9))), "they must be equal"),
        (lambda mask: mask.write_text("no mask"), "cannot read mask"),
        (lambda mask: mask.unlink(), "lack a partner"),
    ],
)
def test_masks_that_cannot_be_used(scenes, spoil, message):
    spoil(scenes / "masks" / "train" / "0.png")
    [line] = of_scenes(scenes).faults
    assert message in line


def test_depths(tmp_path):
    for split in ("train", "val"):
        for number in range(2):
            made_dense.write_jpeg(tmp_path / "images" / split / f"{number}.jpg", 8, 8)
            steps = np.full((8, 8), 1500 + 500 * number)
            steps[: 4 * number] = 0
            made_dense.write_depth(tmp_path / "depths" / split / f"{number}.png", steps)
    found = check_data(DepthFolder(str(tmp_path), num_workers=0))
    train = found.splits["train"]
    assert (train.depths, train.measured) == ((1.5, 2.0), 0.75)
    assert (found.class_names, found.class_weights, found.faults) == ((), [], [])


@pytest.mark.parametrize(
    "name", ["CIFAR10", "Food101", "OxfordPets", "OxfordPetTrimaps", "VOCAug", "ADE20K", "CamVid"]
)
def test_public_sets_are_read_too(name, tmp_path, monkeypatch):
    accept_made_files(monkeypatch)
    MAKERS[name](tmp_path)
    data = getattr(razorlight.data, name)(str(tmp_path), num_workers=0)
    found = check_data(data)
    assert found.faults == []
    train = found.splits["train"]
    assert train.usable == train.samples == len(data.samples("train")) > 0
    assert len(found.class_weights) == data.num_classes
    assert count_labels(data.samples("train"), 0) == train.labels


def test_weights_make_all_classes_count_alike():
    counts = [1, 10, 89]
    weights = balancing_weights(counts)
    assert [w * n for w, n in zip(weights, counts, strict=True)] == pytest.approx([100 / 3] * 3)
    assert balancing_weights([3, 0]) == [1, 1]
    assert balancing_weights([]) == []
