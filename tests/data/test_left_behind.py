"""Files and folders that tools leave beside the user's own are no data, wherever they lie."""

import shutil

import made_classification
import made_dense
import pytest
from PIL import Image

import razorlight.data
from razorlight.data import DepthFolder, ImageFolder, SegmentationFolder

FOLDERS = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".Trash-1000", ".git", "$RECYCLE.BIN"]
JUNK = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(64)


def leave_behind(root):
    """What a Mac, a notebook, a file server and Windows leave in every folder below one."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        files = [path for path in folder.iterdir() if path.is_file()]
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._.DS_Store"):
            (folder / name).write_bytes(JUNK)
        for name in FOLDERS:
            (folder / name).mkdir()
            for file in files[:1]:
                shutil.copy(file, folder / name / f"{file.stem}-checkpoint{file.suffix}")
        for file in files:
            file.with_name(f"._{file.name}").write_bytes(JUNK)


def samples(data):
    """All samples of all stages, and the classes."""
    counts = {split: len(data.samples(split)) for split in data.splits}
    for split, count in counts.items():
        for index in range(count):
            data.samples(split)[index]
    classes = getattr(data, "class_names", ())
    return counts, [str(f) for f in data.predict_images.files], classes


MADE = {**made_classification.MAKERS, **made_dense.MAKERS}
LONG = {"CIFAR10", "CIFAR100", "CUB200", "StanfordCars", "Food101", "Flowers102", "FGVCAircraft"}


@pytest.mark.parametrize("name", sorted(MADE.keys() - LONG))
def test_they_are_no_class_and_no_sample(tmp_path, name):
    MADE[name](tmp_path)
    make = getattr(razorlight.data, name)
    arguments = {"classes": ["a", "b"]} if name == "SegmentationFolder" else {}
    if hasattr(make("nowhere", **arguments), "download"):
        arguments["download"] = True
    before = samples(make(str(tmp_path), predict_folder=str(tmp_path), **arguments))
    leave_behind(tmp_path)
    data = make(str(tmp_path), predict_folder=str(tmp_path), **arguments)
    data.prepare_data()
    assert samples(data) == before


def test_a_data_folder_may_be_hidden_itself(tmp_path):
    root = tmp_path / ".cache" / "@eaDir"
    made_classification.make_image_folder(root)
    counts, files, classes = samples(ImageFolder(str(root), predict_folder=str(root / "val")))
    assert (counts, len(files), classes) == ({"train": 6, "val": 6}, 6, ("cat", "dog"))


@pytest.mark.parametrize(("image", "map"), [("a.JPG", "a.png"), ("a.Jpeg", "a.PNG")])
def test_endings_are_of_any_case_on_both_sides(tmp_path, image, map):
    for split in ("train", "val", "test"):
        for kind, name in (("images", image), ("masks", map), ("depths", map), (".", image)):
            folder = tmp_path / kind / split / ("cat" if kind == "." else "")
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.new("I;16" if kind == "depths" else "L", (6, 4))
            picture.save(folder / name, "PNG")
    for data in (
        SegmentationFolder(str(tmp_path), ["a"], predict_folder=str(tmp_path / "images/val")),
        DepthFolder(str(tmp_path), predict_folder=str(tmp_path / "images/val")),
        ImageFolder(str(tmp_path), predict_folder=str(tmp_path / "val")),
    ):
        counts, files, _ = samples(data)
        assert counts == {"train": 1, "val": 1, "test": 1}
        assert len(files) == 1
