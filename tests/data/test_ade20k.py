from pathlib import Path

import pytest
from made_dense import ade20k

from razorlight.data import ADE20K
from razorlight.errors import RazorError


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    ade20k(tmp_path)
    return tmp_path


def test_zero_is_ignored_and_the_rest_moves_down(ade: Path) -> None:
    data = ADE20K(str(ade), image_size=64, num_workers=0)
    data.setup("validate")
    mask = next(iter(data.val_dataloader()))[1][0]
    # 48x64 pixels, the rest is padding
    stripes = [mask[:48, left : left + 16].unique().tolist() for left in (0, 16, 32, 48)]
    assert stripes == [[255], [0], [12], [149]]
    assert mask[48:].unique().tolist() == [255]


def test_class_names() -> None:
    names = ADE20K("nowhere").class_names
    # ids of the challenge, less one
    assert (names[0], names[12], names[149]) == ("wall", "person", "flag")


def test_no_labelled_test_split(ade: Path) -> None:
    data = ADE20K(str(ade), image_size=32, num_workers=0)
    with pytest.raises(RazorError, match="ADE20K has no test split"):
        data.setup("test")
    data.setup("predict")
    assert len(data.predict_dataloader().dataset) == 4
