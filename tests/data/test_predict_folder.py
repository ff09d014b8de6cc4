"""Folders of any images, to be predicted."""

import pytest

from razorlight.data.predict_folder import PredictFolder
from razorlight.errors import RazorError


def test_broken_file_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(RazorError, match=r"cannot read image .*broken.jpg"):
        PredictFolder(tmp_path)[0]


def test_folder_is_searched_at_any_depth(tmp_path, write_jpeg):
    for name in ("b.JPG", "a/c.jpeg", "a/b.jpg"):
        write_jpeg(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    folder = PredictFolder(tmp_path)
    assert folder.names == ["a/b", "a/c", "b"]
    image, mask = folder[2]
    assert image.shape == (3, 40, 56)
    assert mask.shape == (40, 56)
    assert (mask == 1).all()


@pytest.mark.parametrize(("name", "message"), [("", "no images in"), ("none", "no folder")])
def test_nothing_to_predict_is_refused(tmp_path, name, message):
    with pytest.raises(RazorError, match=message):
        PredictFolder(tmp_path / name)
