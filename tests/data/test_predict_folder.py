"""Photographs of all kinds, and what cannot be read as one."""

import numpy as np
import pytest
from PIL import Image

from razorlight.data.predict_folder import PredictFolder, read_photograph
from razorlight.errors import RazorError

GREY = 130


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("rgb.jpg", Image.new("RGB", (6, 4), (GREY,) * 3)),
        ("grey.png", Image.new("L", (6, 4), GREY)),
        ("transparent.png", Image.new("RGBA", (6, 4), (GREY, GREY, GREY, 7))),
        ("indexed.png", Image.new("RGB", (6, 4), (GREY,) * 3).quantize(4)),
        ("cmyk.jpg", Image.new("RGB", (6, 4), (GREY,) * 3).convert("CMYK")),
        ("deep.png", Image.fromarray(np.full((4, 6), GREY * 257, np.uint16))),
        ("deep.tif", Image.fromarray(np.full((4, 6), GREY * 257, np.int32))),
    ],
)
def test_any_kind_becomes_rgb_of_8_bits(tmp_path, name, picture):
    picture.save(tmp_path / name)
    image = read_photograph(tmp_path / name)
    assert image.shape == (3, 4, 6)
    np.testing.assert_allclose(image.numpy().astype(int), GREY, atol=2)


def test_exif_orientation_is_followed(tmp_path):
    picture = Image.new("RGB", (6, 4))
    picture.paste((255, 0, 0), (0, 0, 3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    image = read_photograph(tmp_path / "turned.png")
    assert image.shape == (3, 6, 4)
    assert (image[0, :3] == 255).all()
    assert (image[0, 3:] == 0).all()


@pytest.mark.parametrize("value", [0.5, 70000, -1])
def test_values_that_are_no_colours_are_refused(tmp_path, value):
    dtype = np.float32 if isinstance(value, float) else np.int32
    Image.fromarray(np.full((4, 6), value, dtype)).save(tmp_path / "raw.tif")
    with pytest.raises(RazorError, match=r"raw.tif has values of more than 16 bits; save it"):
        read_photograph(tmp_path / "raw.tif")


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
