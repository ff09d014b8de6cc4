"""``razorlight check`` and ``razorlight preview``, as a user meets them."""

import sys
from pathlib import Path

import pytest
from data import made_dense
from data.made_classification import accept_made_files, make_cifar10, make_image_folder, write_image
from lightning.pytorch.demos.boring_classes import BoringDataModule
from PIL import Image

from razorlight.cli import main

PHOTOS = ["--config=cls_image_folder.yaml", "--data.root=photos", "--data.num_workers=0"]
SCENES = ["--config=seg_folder.yaml", "--data.root=scenes", "--data.num_workers=0"]
SCENES += ["--data.classes=[background, roof, '[road]']"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A network costs a failure: neither command makes one."""

    def made(*args, **kwargs):
        raise AssertionError("a network is made")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    for task in ("classification.timm_network", "segmentation.smp_network", "depth.smp_network"):
        monkeypatch.setattr(f"razorlight.tasks.{task}", made)
    make_image_folder(Path("photos"))
    for split in ("train", "val", "test"):
        for number in range(2):
            made_dense.write_jpeg(Path("scenes/images", split, f"{split}{number}.jpg"), 40, 41)
            mask = made_dense.stripes((0, 1, 2, 255), 40, 41)
            made_dense.write_mask(Path("scenes/masks", split, f"{split}{number}.png"), mask)


def lines(capsys):
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    # a line with paths may be longer
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 80
    return out.splitlines()


def test_images_of_classes(capsys):
    # all pictures of one number are alike, whatever their class and split
    doubt = (
        "warning: train: 3 images are there twice, with unlike targets, first photos/train/cat/0"
    )
    assert main(["check", *PHOTOS]) == 0
    printed = lines(capsys)
    assert any(line.split() == ["samples", "6", "6"] for line in printed)
    assert any(line.split() == ["cat", "50.00", "3", "50.00", "3", "1"] for line in printed)
    assert "class_weights: [1, 1]" in printed
    assert any(line.startswith(doubt) for line in printed)
    assert "warning: train and val share 3 images, first photos/train/cat/0.jpg and" in "\n".join(
        line[:71] for line in printed
    )
    assert printed[-1] == "fit can read all of it"
    assert Image.open("check.png").width == 960


def test_pixels_of_classes(capsys):
    assert main(["check", *SCENES, "--out=shares.png"]) == 0
    printed = lines(capsys)
    assert any(line.split() == ["pixels", "to", "ignore", *["24.4%"] * 3] for line in printed)
    assert any(line.split()[:3] == ["[road]", "32.26", "2"] for line in printed)
    assert Path("shares.png").is_file()


def test_what_fit_would_stumble_over_is_status_1(capsys):
    write_image(Path("photos/val/cat/0.jpg")).write_text("no image")
    assert main(["check", *PHOTOS]) == 1
    out, err = capsys.readouterr()
    assert "fault: cannot read image photos/val/cat/0.jpg: " in out
    assert err.splitlines()[-1] == "error: check: fit would fail; correct what these lines name"
    assert main(["check", *PHOTOS, "--data.root=nowhere"]) == 1
    assert "error: no folder nowhere; ImageFolder reads" in capsys.readouterr().err


def test_many_faults_are_some_lines(capsys):
    for number in range(9):
        write_image(Path(f"photos/train/cat/bad{number}.jpg")).write_text("no image")
    assert main(["check", *PHOTOS]) == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fault")]
    assert len(faults) == 6
    assert faults[-1] == "fault: and 4 more"


def test_fit_looks_before_it_makes_a_network(capsys):
    write_image(Path("photos/val/cat/0.jpg")).write_text("no image")
    assert main(["fit", *PHOTOS]) == 1
    assert "error: cannot read image photos/val/cat/0.jpg" in capsys.readouterr().err
    made_dense.write_mask(Path("scenes/masks/train/train0.png"), [[9] * 41] * 40)
    assert main(["fit", *SCENES]) == 1
    assert "label 9 is outside 0..2" in capsys.readouterr().err


def test_depths(capsys):
    for split in ("train", "val"):
        made_dense.write_jpeg(Path("rooms/images", split, "0.jpg"), 40, 40)
        steps = made_dense.stripes((0, 1000, 2000, 3000), 40, 40)
        made_dense.write_depth(Path("rooms/depths", split, "0.png"), steps)
    options = ["--config=depth_folder.yaml", "--data.root=rooms", "--data.num_workers=0"]
    assert main(["check", *options]) == 0
    printed = lines(capsys)
    row = ["depths", "in", "metres", *["1.00", "to", "3.00"] * 2]
    assert any(line.split() == row for line in printed)
    assert not any(line.startswith("class_weights") for line in printed)
    assert main(["preview", *options, "--data.image_size=32"]) == 0
    assert Path("preview.png").is_file()


@pytest.mark.parametrize(("count", "rows"), [(2, 1), (6, 2), (50, 2)])
def test_a_preview_has_augmented_pictures_and_class_names(capsys, count, rows):
    words = [*PHOTOS, "--data.batch_size=2", "--data.image_size=32", f"--count={count}"]
    assert main(["preview", *words]) == 0
    shown = min(count, 6)
    assert lines(capsys) == [f"{shown} training images, as the network sees them: preview.png"]
    size = Image.open("preview.png").size
    assert size == (288 * min(shown, 4), 312 * rows)


def test_a_preview_of_masks(capsys):
    assert main(["preview", *SCENES, "--data.image_size=32", "--out=masks.png"]) == 0
    assert lines(capsys) == ["2 training images, as the network sees them: masks.png"]
    assert Path("masks.png").is_file()


@pytest.mark.parametrize("command", ["check", "preview"])
def test_mistakes_are_a_line(command, capsys):
    other = f"{BoringDataModule.__module__}.{BoringDataModule.__name__}"
    words = ["--config=cls_image_folder.yaml", f"--data={other}", "--model.num_classes=2"]
    assert main([command, *words]) == 1
    assert f"error: {command}: BoringDataModule is no data module" in capsys.readouterr().err
    assert main([command, *PHOTOS, "--data.rot=x"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_preview_of_no_pictures(capsys):
    assert main(["preview", *PHOTOS, "--count=0"]) == 1
    assert "error: preview: count is 0; it must be 1 or more" in capsys.readouterr().err


def test_data_of_others_are_read_too(capsys, monkeypatch):
    accept_made_files(monkeypatch)
    make_cifar10(Path("data"))
    options = ["--config=cls_cifar10.yaml", "--data.num_workers=0"]
    assert main(["check", *options]) == 0
    assert any(line.split()[:1] == ["class9"] for line in lines(capsys))
