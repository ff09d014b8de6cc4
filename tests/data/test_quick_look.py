"""Before training, one line says which classes it will not see."""

import re
import warnings

import made_classification
import made_dense
import numpy as np
import pytest
from PIL import Image

import razorlight.data.quick_look
from razorlight.data import ImageFolder, SegmentationFolder, VOCAug
from razorlight.errors import RazorError


def said(data):
    """The warnings of a fit's beginning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup("fit")
        data.setup("fit")
    return [str(warning.message) for warning in caught]


def scenes(root, *masks):
    for split in ("train", "val"):
        for number, mask in enumerate(masks):
            made_dense.write_jpeg(root / "images" / split / f"{number}.jpg", 8, 8)
            made_dense.write_mask(root / "masks" / split / f"{number}.png", np.resize(mask, (8, 8)))
    return str(root)


def test_masks_of_0_and_255_for_two_classes(tmp_path):
    root = scenes(tmp_path, [0, 255], [0, 0])
    assert said(SegmentationFolder(root, ["background", "roof"])) == [
        "SegmentationFolder: no pixel of the 2 training masks is of 'roof'; 25% of the pixels are "
        "255, which is ignored. The masks hold class ids, 0 to 1; to read 255 as a class, set "
        "label_map: {255: CLASS}"
    ]


def test_nothing_is_said_where_training_sees_every_class(tmp_path):
    root = scenes(tmp_path, [0, 255], [2, 255], [1])
    assert said(SegmentationFolder(root, ["a", "b", "c"])) == []


@pytest.mark.parametrize("looked", [1, 2, 3])
def test_a_part_of_many_masks_is_looked_at_and_said(tmp_path, monkeypatch, looked):
    monkeypatch.setattr(razorlight.data.quick_look, "FILES", looked)
    root = scenes(tmp_path, [0], [0], [0])
    [line] = said(SegmentationFolder(root, list("abcdef")))
    share = f"{looked} of the 3" if looked < 3 else "the 3"
    assert f"no pixel of {share} training masks is of 'b', 'c', 'd' and 2 more; 0% of" in line


def test_data_of_several_parts(tmp_path):
    made_dense.voc_aug(tmp_path)
    [line] = said(VOCAug(str(tmp_path), download=False))
    assert re.search(r"of the 4 training masks is of 'aeroplane', 'bicycle', 'bird' and 15", line)


def test_a_class_without_an_image(tmp_path):
    made_classification.make_image_folder(tmp_path)
    assert said(ImageFolder(str(tmp_path))) == []
    (tmp_path / "train" / "emu").mkdir()
    assert said(ImageFolder(str(tmp_path))) == ["ImageFolder: no training image is of 'emu'"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("masks/{}/1.png", "has 3 channels"),
        ("images/{}/1.jpg", "pixels high and wide"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_before_training(tmp_path, split, file, message):
    root = scenes(tmp_path, [0], [1])
    Image.new("RGB", (9, 9)).save(tmp_path / file.format(split))
    with pytest.raises(RazorError, match=message):
        said(SegmentationFolder(root, ["a", "b"]))


def test_an_image_that_is_none_is_said_before_training(tmp_path):
    made_classification.make_image_folder(tmp_path)
    next((tmp_path / "train").rglob("*.jpg")).write_text("no image")
    with pytest.raises(RazorError, match=r"cannot read image .*; replace or remove it"):
        said(ImageFolder(str(tmp_path)))


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_looks(tmp_path, monkeypatch, rank):
    monkeypatch.setattr("lightning.pytorch.utilities.rank_zero_only.rank", rank)
    root = scenes(tmp_path, [0])
    data = SegmentationFolder(root, ["a", "b"])
    monkeypatch.setattr("razorlight.data.samples.PairedImages.target", lambda *_: 1 / rank)
    if rank:
        assert said(data) == []
    else:
        with pytest.raises(ZeroDivisionError):
            said(data)
