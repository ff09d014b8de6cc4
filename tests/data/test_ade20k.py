from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from razorlight.data import ADE20K
from razorlight.errors import RazorError

Writer = Callable[..., Path]


@pytest.fixture
def ade(tmp_path: Path, write_jpeg: Writer, write_mask: Writer) -> Path:
    base = tmp_path / "ADEChallengeData2016"
    for folder, name in (("training", "train"), ("validation", "val")):
        for number in (1, 2, 3):
            stem = f"ADE_{name}_{number:08d}"
            height, width = (48, 64) if number % 2 else (64, 40)
            write_jpeg(base / "images" / folder / f"{stem}.jpg", height, width)
            labels = np.zeros((height, width))
            labels[:, 10:20], labels[:, 20:] = 1, 150
            write_mask(base / "annotations" / folder / f"{stem}.png", labels)
    return tmp_path


def test_batches(ade: Path) -> None:
    data = ADE20K(str(ade), image_size=64, batch_size=3, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images, masks = next(iter(loader))
        assert images.shape == (3, 3, 64, 64)
        assert images.dtype == torch.float32
        assert masks.shape == (3, 64, 64)
        assert masks.dtype == torch.int64
        assert set(masks.unique().tolist()) <= {0, 149, 255}


def test_zero_is_ignored_and_the_rest_moves_down(ade: Path) -> None:
    data = ADE20K(str(ade), image_size=64, num_workers=0)
    data.setup("validate")
    mask = next(iter(data.val_dataloader()))[1][0]
    assert mask[:48, :10].unique().tolist() == [255]
    assert mask[:48, 10:20].unique().tolist() == [0]
    assert mask[:48, 20:].unique().tolist() == [149]
    assert mask[48:].unique().tolist() == [255]


def test_label_out_of_range(ade: Path, write_mask: Writer) -> None:
    path = ade / "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png"
    write_mask(path, np.full((48, 64), 151))
    data = ADE20K(str(ade), num_workers=0)
    data.setup("validate")
    with pytest.raises(RazorError, match=r"ADE_val_00000001\.png: label 151 is outside 1\.\.150"):
        list(data.val_dataloader())


def test_class_names() -> None:
    data = ADE20K("nowhere")
    assert data.num_classes == len(set(data.class_names)) == len(data.palette) == 150
    # ids of the challenge, less one
    assert (data.class_names[0], data.class_names[12], data.class_names[149]) == (
        "wall",
        "person",
        "flag",
    )


def test_no_labelled_test_split(ade: Path) -> None:
    data = ADE20K(str(ade), image_size=32, num_workers=0)
    with pytest.raises(RazorError, match="ADE20K has no test split"):
        data.setup("test")
    data.setup("predict")
    assert len(data.predict_dataloader().dataset) == 3


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(
        RazorError, match=r"no folder .*images/training; for ADE20K, unzip"
    ) as caught:
        ADE20K(str(tmp_path)).setup("fit")
    assert "\n" not in str(caught.value)
