"""Files of others: read as data, refused with one line that names them, and never run."""

import os
import pickle
import struct
import zlib
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from razorlight import RazorError
from razorlight.cli import main
from razorlight.data import CUB200, VOCAug
from razorlight.data.files import require_below
from razorlight.data.image_folder import ImageFolder
from razorlight.data.label_coding import LabelCoding
from razorlight.data.predict_folder import PredictFolder
from razorlight.data.reading import read_image
from razorlight.data.samples import PairedImages
from razorlight.data.sets.voc import _SBDCoding
from razorlight.tasks.weights import read_weights


class Evil:
    """What runs a command, if anybody unpickles it."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


def saved_by_torch(path):
    torch.save({"state_dict": {}, "loops": Evil(), "hyper_parameters": Evil()}, path)


def pickled(path):
    path.write_bytes(pickle.dumps({"state_dict": {}, "callbacks": Evil()}))


class Counted:
    """What runs a command by way of a type that is allowed."""

    def __reduce__(self):
        return Counter, (Evil(),)


def beside_options(path):
    options = Namespace(lr=0.1, hook=Evil(), counts=Counted())
    torch.save({"state_dict": {}, "args": options, "acc": np.float64(1)}, path)


def legacy(path):
    torch.save({"state_dict": Evil()}, path, _use_new_zipfile_serialization=False)


@pytest.fixture(params=[saved_by_torch, pickled, beside_options, legacy])
def evil(request, folder):
    request.param(folder / "evil.ckpt")
    yield "evil.ckpt"
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_checkpoint_that_would_run_code(command, evil, error_line):
    assert main([command, "--config", "small.yaml", "--ckpt_path", evil]) == 1
    start = f"error: ckpt_path: cannot read tensors from {evil}, and no code in it was run"
    assert error_line().startswith(start)


def test_weights_that_would_run_code(evil):
    message = r"weights: cannot read tensors from evil\.ckpt, and no code in it was run"
    with pytest.raises(RazorError, match=message):
        read_weights(evil)


def test_export_of_what_would_run_code(evil, error_line):
    assert main(["export", "--ckpt", evil]) == 1
    assert "export: cannot read tensors from evil.ckpt, and no code in it was run" in error_line()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.frombuffer, print, open])
def test_functions_in_a_file_are_refused(folder, function):
    class Called:
        def __reduce__(self):
            return function, ("1",)

    torch.save({"args": Namespace(called=Called())}, "evil.pth")
    with pytest.raises(RazorError, match=r"evil\.pth, and no code in it was run"):
        read_weights("evil.pth")


@pytest.mark.parametrize("cut", [0, 1, 100, 3000, -1])
def test_a_checkpoint_cut_short(folder, cut):
    torch.save({"state_dict": {"weight": torch.randn(999)}}, "whole.ckpt")
    Path("cut.ckpt").write_bytes(Path("whole.ckpt").read_bytes()[:cut])
    with pytest.raises(RazorError, match=r"cannot read tensors from cut\.ckpt"):
        read_weights("cut.ckpt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 1}, "is no checkpoint of Lightning"),
        ([torch.zeros(1)], "is no checkpoint of Lightning"),
        (None, "there is no file some.ckpt"),
    ],
)
def test_what_is_no_checkpoint(folder, error_line, content, message):
    if content is not None:
        torch.save(content, "some.ckpt")
    assert main(["fit", "--config", "small.yaml", "--ckpt_path", "some.ckpt"]) == 1
    assert message in error_line()


def test_a_checkpoint_does_not_change_the_configuration(folder, error_line):
    hparams = {"_class_path": "razorlight.tasks.DepthTask", "encoder": "resnet18"}
    content = {"state_dict": {}, "pytorch-lightning_version": "2.6.0", "hyper_parameters": hparams}
    torch.save(content, "other.ckpt")
    assert main(["fit", "--config", "small.yaml", "--ckpt_path", "other.ckpt"]) == 1
    line = error_line()
    assert "of another network: " in line
    assert "names of this network are missing" in line


@pytest.mark.parametrize(
    "line",
    [
        "seed_everything: !!python/object/apply:os.mkdir [pwned]",
        "data: !!python/object/new:os.mkdir [pwned]",
        "trainer: {max_epochs: !!python/name:os.mkdir }",
        "model: !!python/module:os",
    ],
)
def test_yaml_with_tags_of_python(folder, error_line, line):
    Path("evil.yaml").write_text(line)
    assert main(["fit", "--config", "small.yaml", "--config", "evil.yaml"]) == 2
    assert error_line().startswith("error: evil.yaml: ")
    assert not Path("pwned").exists()


def png_of(width, height):
    """The beginning of a PNG that says it is so large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


def jpeg_bytes():
    Image.new("RGB", (64, 64), (9, 200, 9)).save("plain.jpg")
    return Path("plain.jpg").read_bytes()


DAMAGED = {
    "bomb.png": lambda: png_of(60_000, 60_000),
    "cut.jpg": lambda: jpeg_bytes()[:400],
    "empty.png": lambda: b"",
    "text.png": lambda: b"I am no picture",
    "matlab.png": lambda: b"MATLAB 5.0 MAT-file" + bytes(109),
    "header.png": lambda: png_of(8, 8)[:20] + b"\xff",
    "number.ppm": lambda: b"P6 3x4 5 255 " + bytes(60),
    "program.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nrun\n",
    "page.jpg": lambda: b"<html>404 not found</html>",
}


@pytest.mark.parametrize("read", [read_image, LabelCoding(range(3)).read])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_not_what_it_says(tmp_path, monkeypatch, name, read):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(DAMAGED[name]())
    with pytest.raises(RazorError, match=f"cannot read (image|mask) .*{name}.*; replace or remove"):
        read(path)


def test_damaged_bytes_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 3, (8, 9), np.uint8))
    refused = 0
    for suffix in ("png", "jpg", "ppm", "bmp", "webp"):
        path = tmp_path / f"a.{suffix}"
        image.save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[draw.integers(len(whole), size=3)] = draw.integers(256, size=3)
            path.write_bytes(damaged.tobytes())
            try:
                read_image(path)
            except RazorError:
                refused += 1
    assert refused > 60


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"\x89PNG"])
def test_a_mat_file_that_is_none(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(RazorError, match=r"cannot read mask .*a\.mat"):
        _SBDCoding(range(21)).read(tmp_path / "a.mat")


def test_a_mat_file_of_something_else(tmp_path):
    savemat(tmp_path / "a.mat", {"other": np.zeros((3, 3))})
    with pytest.raises(RazorError, match=r"cannot read mask .*a\.mat.*GTcls"):
        _SBDCoding(range(21)).read(tmp_path / "a.mat")


def test_a_mask_of_another_size(tmp_path):
    Image.new("RGB", (9, 8)).save(tmp_path / "a.jpg")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    pairs = PairedImages([(tmp_path / "a.jpg", tmp_path / "a.png")], LabelCoding(range(2)))
    with pytest.raises(RazorError, match=r"a\.jpg is 8x9 pixels .*a\.png 8x8; they must be equal"):
        pairs[0]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b.jpg"])
def test_a_list_that_leads_out_of_the_folder(tmp_path, name):
    base = tmp_path / "CUB_200_2011"
    base.mkdir()
    (base / "images.txt").write_text(f"1 ../{name}\n" if name[0] == "." else f"1 {name}\n")
    (base / "image_class_labels.txt").write_text("1 1\n")
    (base / "train_test_split.txt").write_text("1 1\n")
    (base / "classes.txt").write_text("1 001.Albatross\n")
    if name[0] == "a":
        assert CUB200(str(tmp_path)).read("train").files[0] == base / "images" / name
        return
    with pytest.raises(RazorError, match=r"passwd is not below .*; correct the list of files"):
        CUB200(str(tmp_path)).prepare_data()


def test_a_list_of_voc_that_leads_out(tmp_path):
    lists = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("../../../../../etc/passwd\n")
    with pytest.raises(RazorError, match=r"passwd\.jpg is not below"):
        VOCAug(str(tmp_path), download=False).samples("train")


def test_links_are_followed_and_belong_to_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere")
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere" / "a.jpg")
    assert read_image(require_below(tmp_path / "root", tmp_path / "root" / "a.jpg")).shape[0] == 3


def test_a_link_in_a_circle(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / split / "cat" / "a.jpg")
    data = ImageFolder(str(tmp_path))
    assert len(data.samples("train")) == 1
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    with pytest.raises(RazorError, match=r"again is .*cat again, by a symbolic link; remove"):
        data.samples("train")
    assert len(PredictFolder(tmp_path / "train")) == 1


def test_an_image_that_links_to_itself(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(RazorError, match=r"cannot read image .*a\.jpg"):
        read_image(tmp_path / "a.jpg")
