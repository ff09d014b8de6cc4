"""Pictures as a viewer shows them, and maps as they are, of every kind and in every stage."""

import shutil
import warnings
from pathlib import Path

import made_classification
import made_dense
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import razorlight.data
from razorlight.data import DepthFolder, ImageFolder, SegmentationFolder
from razorlight.data.reading import read_image
from razorlight.errors import RazorError

ORIENTATION = 0x0112
GREY = 130
COLOUR = Image.new("RGB", (6, 4), (GREY,) * 3)


def turned(picture, path, orientation, **options):
    """Save a picture with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture.save(path, exif=exif, **options)
    return path


def shown(path):
    """What Pillow makes of a picture for a viewer, (3, H, W)."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)


def noise(height=12, width=20, highest=256):
    return np.random.default_rng(0).integers(0, highest, (height, width), np.uint8)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_picture_is_turned_as_a_viewer_turns_it(tmp_path, suffix, orientation):
    path = turned(Image.fromarray(noise()), tmp_path / f"a.{suffix}", orientation)
    assert torch.equal(read_image(path), shown(path))


def test_damaged_exif_data_turn_nothing(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09damage")
    assert read_image(tmp_path / "a.png").shape == (3, 12, 20)


def every_image(data):
    """The samples of all stages."""
    folder = data.predict_images
    return [data.samples(split)[0][0] for split in data.splits] + [folder[0][0]]


def turn_files(root):
    """Give all pictures below a folder, but no maps, one orientation that keeps their size."""
    for path in root.rglob("*"):
        if path.suffix.lower() in (".jpg", ".jpeg") or "leftImg8bit.png" in path.name:
            with Image.open(path) as image:
                pixels = Image.fromarray(noise(image.height, image.width)).convert("RGB")
            turned(pixels, path, 3)


FILES = sorted(made_classification.MAKERS.keys() - {"CIFAR10", "CIFAR100", "OxfordPetTrimaps"})


@pytest.mark.parametrize("name", FILES)
def test_every_set_of_classes_turns_its_pictures(tmp_path, monkeypatch, name):
    made_classification.accept_made_files(monkeypatch)
    made_classification.MAKERS[name](tmp_path)
    shutil.rmtree(tmp_path / "oxford-iiit-pet/annotations/trimaps", ignore_errors=True)
    turn_files(tmp_path)
    data = getattr(razorlight.data, name)(str(tmp_path), predict_folder=str(tmp_path))
    stored = torch.from_numpy(noise(*every_image(data)[0].shape[-2:]))
    for image in every_image(data):
        difference = image.float().mean(0) - stored.flip(0, 1)
        assert difference.abs().mean() < 30  # a JPEG of noise; turned otherwise it is 85


@pytest.mark.parametrize("name", sorted(made_dense.MAKERS))
def test_every_set_of_maps_turns_its_pictures_and_keeps_its_maps(tmp_path, name):
    made_dense.MAKERS[name](tmp_path)
    arguments = {"classes": ["a", "b"]} if name == "SegmentationFolder" else {}
    make = getattr(razorlight.data, name)
    if name.startswith("VOC"):
        arguments = {"download": False}
    before = make(str(tmp_path), **arguments).samples("train")[0]
    size = before[0].shape[-2:]
    turn_files(tmp_path)
    data = make(str(tmp_path), predict_folder=str(tmp_path), **arguments)
    image, mask = data.samples("train")[0]
    stored = torch.from_numpy(noise(*size))
    assert (image.float().mean(0) - stored.flip(0, 1)).abs().mean() < 30
    assert torch.equal(mask, before[1])  # of the picture's size as it is shown: drawn on that


def folder_of(root, orientation, mask, mask_orientation=None, size=(12, 20)):
    """A picture with an orientation and a mask, in a data module."""
    labels = Image.fromarray(np.asarray(mask, np.uint8))
    for split in ("train", "val"):
        picture = Image.fromarray(noise(*size))
        turned(picture, root / "images" / split / "a.png", orientation)
        path = root / "masks" / split / "a.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if mask_orientation is None:
            labels.save(path)
        else:
            turned(labels, path, mask_orientation)
    return SegmentationFolder(str(root), ["a", "b", "c"], num_workers=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_lies_on_the_picture_as_it_is_shown(tmp_path, orientation):
    picture = Image.fromarray(noise(highest=3))
    stored = np.asarray(picture)
    exif = picture.getexif()
    exif[ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(picture))
    # drawn on the shown picture, and saved without EXIF data
    image, mask = folder_of(tmp_path, orientation, upright).samples("train")[0]
    assert image.shape[-2:] == mask.shape
    assert mask.tolist() == upright.tolist()
    # stored as the picture is, with the same EXIF data
    _, mask = folder_of(tmp_path, orientation, stored, orientation).samples("train")[0]
    assert mask.tolist() == upright.tolist()
    # drawn by a tool that heeds no EXIF data: only the size can tell
    if orientation > 4:
        image, mask = folder_of(tmp_path, orientation, stored).samples("train")[0]
        assert image.shape[-2:] == mask.shape
        assert mask.tolist() == upright.tolist()


def test_a_square_mask_lies_on_the_picture_as_it_is_shown(tmp_path):
    labels = noise(12, 12, highest=3)
    _, mask = folder_of(tmp_path, 6, labels, size=(12, 12)).samples("train")[0]
    assert mask.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("shape", "mask_orientation"), [((12, 19), None), ((20, 12), 6), ((12, 20), 3)]
)
def test_a_mask_that_no_orientation_fits_is_refused(tmp_path, shape, mask_orientation):
    data = folder_of(tmp_path, 6, np.zeros(shape), mask_orientation)
    with pytest.raises(RazorError, match=r"images/train/a\.png is 20x12 pixels .*masks/train/a"):
        data.samples("train")[0]


def test_depth_is_turned_with_its_picture_to_the_bit(tmp_path):
    made_dense.depth_folder(tmp_path)
    steps = np.random.default_rng(0).integers(0, 2**16, (48, 64), np.uint16)
    made_dense.write_depth(tmp_path / "depths/train/kitchen_0001.png", steps)
    turned(Image.fromarray(noise(48, 64)), tmp_path / "images/train/kitchen_0001.jpg", 8)
    image, depth = DepthFolder(str(tmp_path)).samples("train")[0]
    assert image.shape[-2:] == (64, 48)
    assert torch.equal(depth, torch.from_numpy(np.rot90(steps).astype(np.float32) / 1000))


def ramp(dtype):
    return Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(dtype))


def deep_colours(path):
    """A PNG of 16 bits a channel, which Pillow does not write."""
    import struct
    import zlib

    values = (np.ones((4, 6, 3)) * GREY * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks.items()
        )
    )


def transparent_palette(path):
    COLOUR.quantize(4).save(path, transparency=bytes([7, 8, 9, 10]))


KINDS = {
    "rgb.jpg": COLOUR.save,
    "grey.png": Image.new("L", (6, 4), GREY).save,
    "grey_alpha.png": Image.new("LA", (6, 4), (GREY, 9)).save,
    "transparent.png": Image.new("RGBA", (6, 4), (GREY, GREY, GREY, 7)).save,
    "one_colour_is_transparent.png": lambda path: COLOUR.save(path, transparency=(GREY,) * 3),
    "indexed.png": COLOUR.quantize(4).save,
    "indexed_transparent.png": transparent_palette,
    "cmyk.jpg": COLOUR.convert("CMYK").save,
    "ycbcr.tif": COLOUR.convert("YCbCr").save,
    "deep.png": Image.fromarray(np.full((4, 6), GREY * 257, np.uint16)).save,
    "deep.tif": Image.fromarray(np.full((4, 6), GREY * 257, np.uint16)).save,
    "deep.pgm": Image.fromarray(np.full((4, 6), GREY * 257, np.uint16)).save,
    "deep_integers.tif": Image.fromarray(np.full((4, 6), GREY * 257, np.int32)).save,
    "deep_colours.png": deep_colours,
}


def in_every_stage(root, name, save):
    for split in ("train", "val", "test"):
        (root / split / "cat").mkdir(parents=True)
        save(root / split / "cat" / name)
    return ImageFolder(str(root), num_workers=0, predict_folder=str(root / "test"))


@pytest.mark.parametrize("name", KINDS)
def test_every_stage_reads_any_kind_as_rgb_of_8_bits(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = every_image(in_every_stage(tmp_path, name, KINDS[name]))
    assert len(images) == 4
    for image in images:
        assert (image.dtype, image.shape) == (torch.uint8, (3, 4, 6))
        np.testing.assert_allclose(image.numpy().astype(int), GREY, atol=2)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "integers.tif"])
def test_every_stage_keeps_the_greys_of_a_deep_picture(tmp_path, name):
    save = ramp(np.int32 if "integers" in name else np.uint16).save
    for image in every_image(in_every_stage(tmp_path, name, save)):
        assert image[0].unique().tolist() == [*range(256)]


def test_a_picture_of_one_bit_is_black_and_white(tmp_path):
    bits = noise(highest=2).astype(bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png")[1] == 255, torch.from_numpy(bits))


@pytest.mark.parametrize("value", [70000, -1, 200])
def test_values_that_are_no_colours_are_refused_in_every_stage(tmp_path, value):
    raw = Image.fromarray(np.full((4, 6), value, np.int32))
    data = in_every_stage(tmp_path, "raw.tif", raw.save)
    for read in (*(data.samples(split) for split in data.splits), data.predict_images):
        with pytest.raises(RazorError, match=r"raw.tif has values of .* bits.*; save it") as caught:
            read[0]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.5, 200.0])
def test_floats_are_no_picture(tmp_path, value):
    Image.fromarray(np.full((4, 6), value, np.float32)).save(tmp_path / "raw.tif")
    with pytest.raises(RazorError, match=r"raw.tif has values of more than 16 bits"):
        read_image(tmp_path / "raw.tif")


@pytest.mark.parametrize("value", [-1, 65536, 2.5])
def test_a_mask_of_other_numbers_is_refused(tmp_path, value):
    dtype = np.float32 if isinstance(value, float) else np.int32
    path = made_dense.write_mask(tmp_path / "a.png", [[0]])
    Image.fromarray(np.full((4, 6), value, dtype)).save(path, "TIFF")
    coding = SegmentationFolder(str(tmp_path), ["a", "b"]).coding
    with pytest.raises(RazorError, match=rf"label {value} is outside 0\.\.1"):
        coding.read(Path(path))


def test_masks_of_one_bit_are_of_two_classes(tmp_path):
    Image.fromarray(noise(highest=2).astype(bool)).save(tmp_path / "a.png")
    coding = SegmentationFolder(str(tmp_path), ["a", "b"]).coding
    assert coding.read(tmp_path / "a.png").tolist() == noise(highest=2).tolist()
