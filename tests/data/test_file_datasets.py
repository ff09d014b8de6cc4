from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from razorlight.data.files import pair_by_stem
from razorlight.data.label_coding import LabelCoding
from razorlight.data.reading import read_image
from razorlight.data.samples import LabelledImages, PairedImages
from razorlight.errors import RazorError

Writer = Callable[..., Path]


def one_line(caught: pytest.ExceptionInfo[RazorError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_read_image_converts_to_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(tmp_path / "grey.png")
    image = read_image(tmp_path / "grey.png")
    assert image.shape == (3, 4, 6)
    assert image.dtype == torch.uint8
    assert image.unique().tolist() == [7]


def test_truncated_jpeg_is_named(tmp_path: Path, write_jpeg: Writer) -> None:
    path = write_jpeg(tmp_path / "a.jpg", 200, 200)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RazorError, match=r"a\.jpg.*truncated") as caught:
        read_image(path)
    one_line(caught)


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(RazorError, match=r"cannot read image .*a\.png") as caught:
        read_image(tmp_path / "a.png")
    one_line(caught)
    with pytest.raises(RazorError, match=r"cannot read mask .*a\.png"):
        LabelCoding(range(3)).read(tmp_path / "a.png")


@pytest.mark.parametrize("cut", [30, 60, 100])
def test_truncated_png_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RazorError, match=r"cannot read mask .*a\.png"):
        LabelCoding(range(3)).read(path)


def test_palette_and_grey_masks_give_ids_not_colours(tmp_path: Path, write_mask: Writer) -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    for path in (tmp_path / "grey.png", write_mask(tmp_path / "indexed.png", labels)):
        assert LabelCoding(range(3)).read(path).tolist() == labels.tolist()


def test_sixteen_bit_masks_are_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 2]], np.uint16)).save(tmp_path / "deep.png")
    assert LabelCoding(range(3)).read(tmp_path / "deep.png").tolist() == [[0, 2]]
    Image.fromarray(np.array([[0, 258]], np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(RazorError, match="label 258"):
        LabelCoding(range(3)).read(tmp_path / "deep.png")


def test_coding_shifts_and_ignores(tmp_path: Path, write_mask: Writer) -> None:
    path = write_mask(tmp_path / "m.png", [[0, 1, 3]])
    assert LabelCoding(range(1, 4), ignored=(0,)).read(path).tolist() == [[255, 0, 2]]


@pytest.mark.parametrize("label", [3, 254])
def test_label_out_of_range(tmp_path: Path, write_mask: Writer, label: int) -> None:
    path = write_mask(tmp_path / "m.png", [[0, 255, label]])
    with pytest.raises(RazorError, match=rf"m\.png: label {label} is outside 0\.\.2") as caught:
        LabelCoding(range(3)).read(path)
    one_line(caught)


def test_label_below_the_first(tmp_path: Path, write_mask: Writer) -> None:
    path = write_mask(tmp_path / "m.png", [[0, 1]])
    with pytest.raises(RazorError, match=r"label 0 is outside 1\.\.2"):
        LabelCoding((1, 2), ignored=(3,)).read(path)


def test_colour_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(RazorError, match="3 channels") as caught:
        LabelCoding(range(3)).read(tmp_path / "m.png")
    one_line(caught)


def test_pairs_are_sorted_by_name(tmp_path: Path, write_jpeg: Writer, write_mask: Writer) -> None:
    for stem in ("b", "a"):
        write_jpeg(tmp_path / "images" / f"{stem}.jpg")
        write_mask(tmp_path / "masks" / f"{stem}.png", [[0]])
    (tmp_path / "images" / "notes.txt").write_text("no image")
    pairs = pair_by_stem(tmp_path / "images", tmp_path / "masks", "remedy")
    assert [(i.name, m.name) for i, m in pairs] == [("a.jpg", "a.png"), ("b.jpg", "b.png")]


def test_files_without_partner_are_named(
    tmp_path: Path, write_jpeg: Writer, write_mask: Writer
) -> None:
    for stem in ("a", "b"):
        write_jpeg(tmp_path / "images" / f"{stem}.jpg")
    for stem in ("b", "c"):
        write_mask(tmp_path / "masks" / f"{stem}.png", [[0]])
    with pytest.raises(RazorError, match=r"^2 files .*a\.jpg.*c\.png") as caught:
        pair_by_stem(tmp_path / "images", tmp_path / "masks", "remedy")
    one_line(caught)


def test_two_masks_of_one_stem_are_refused(
    tmp_path: Path, write_jpeg: Writer, write_mask: Writer
) -> None:
    write_jpeg(tmp_path / "images" / "a.jpg")
    for name in ("a.png", "a.PNG"):
        write_mask(tmp_path / "masks" / name, [[0]])
    with pytest.raises(RazorError, match=r"a\.PNG and .*a\.png have one stem") as caught:
        pair_by_stem(tmp_path / "images", tmp_path / "masks", "remedy")
    one_line(caught)


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(RazorError, match=r"no folder .*masks; remedy"):
        pair_by_stem(tmp_path / "images", tmp_path / "masks", "remedy")
    (tmp_path / "masks").mkdir()
    with pytest.raises(RazorError, match=r"no images in .*images; remedy"):
        pair_by_stem(tmp_path / "images", tmp_path / "masks", "remedy")


def test_image_and_mask_of_unequal_size(
    tmp_path: Path, write_jpeg: Writer, write_mask: Writer
) -> None:
    image = write_jpeg(tmp_path / "i.jpg", 8, 9)
    mask = write_mask(tmp_path / "m.png", np.zeros((9, 8)))
    with pytest.raises(RazorError, match=r"i\.jpg is 8x9.*m\.png 9x8") as caught:
        PairedImages([(image, mask)], LabelCoding((0,)))[0]
    one_line(caught)


def test_errors_keep_their_type_through_worker_processes(tmp_path: Path) -> None:
    loader = DataLoader(LabelledImages([(tmp_path / "none.jpg", 0)], ["a"]), num_workers=1)
    batches = iter(loader)
    with pytest.raises(RazorError, match=r"none\.jpg"):
        next(batches)
    batches._shutdown_workers()  # left to the garbage collector, this waits for 5 s
