"""A small folder of one's own, by the shipped configurations, as its owner would use it."""

import csv
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
from data import made_dense
from data.made_classification import write_image
from pages import ROOT, blocks
from PIL import Image

from razorlight.cli import main

SMALL = ["--data.num_workers=0", "--model.weights=none", "--trainer.max_epochs=2"]
CLASSES = [*SMALL, "--model.model=resnet10t", "--data.image_size=32"]
MASKS = [*SMALL, "--model.encoder=tu-resnet10t", "--data.image_size=32"]
MASKS += ["--data.mask_suffix=_mask", "--data.label_map={255: 1}"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])


@pytest.fixture
def photos():
    for name in ("birch", "oak", "rock"):
        for number in range(14):
            write_image(Path("photos", name, f"{name}{number}.jpg"))


@pytest.fixture
def roofs():
    for number in range(12):
        made_dense.write_jpeg(Path("roofs/images", f"{number:04}.jpg"), 32, 32)
        mask = Path("roofs/masks", f"{number:04}_mask.png")
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(mask)


PATH = blocks((ROOT / "docs/get_started.md").read_text(), "bash")[2][1]
"""The commands of the page that lead from an installation to predictions."""


def test_forty_photographs_in_six_commands(capsys):
    """As the page shows them, but with a small network of random weights."""
    rng = np.random.default_rng(0)
    for folder in ("photos/birch", "photos/oak", "more_photos/here/and/there"):
        Path(folder).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (60 + number, 80, 3), np.uint8)
            Image.fromarray(pixels).save(Path(folder, f"{number:02}.jpg"))
    install, *lines = PATH.replace("\\\n", " ").splitlines()
    assert (install, len(lines)) == ('pip install -e ".[onnx]"', 5)
    for words in map(shlex.split, lines):
        options = CLASSES if words[1] in ("check", "fit") else []
        assert main([*words[1:], *options]) == 0, capsys.readouterr().err
    with Path("runs/image_folder/version_2/predictions/classes.csv").open(newline="") as file:
        predicted = [*csv.DictReader(file)]
    assert [row["file"] for row in predicted] == [
        f"more_photos/here/and/there/{number:02}.jpg" for number in range(20)
    ]
    assert {row["class"] for row in predicted} <= {"birch", "oak"}
    assert Path("runs/image_folder/version_1/val_confusion.png").is_file()
    timm.create_model("resnet10t", num_classes=2, checkpoint_path="trees.safetensors")  # strictly
    assert "birch, oak" in Path("trees.md").read_text()
    session = onnxruntime.InferenceSession("trees.onnx")
    images = np.zeros((1, 3, 32, 32), np.float32)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images})
    assert outputs.shape == (1, 2)
    Path("photos").rename("gone")  # the file alone says what the network is
    words = ["--model=trees.safetensors", "--data.predict_folder=more_photos"]
    assert main(["predict", *words, "--data.num_workers=0"]) == 0, capsys.readouterr().err
    with Path("runs/trees/version_0/predictions/classes.csv").open(newline="") as file:
        again = [*csv.DictReader(file)]
    assert [row["file"] for row in again] == [row["file"] for row in predicted]
    assert {row["class"] for row in again} <= {"birch", "oak"}


def fit(config, root, options):
    return main(["fit", "--config", config, "--data.root", root, *options])


def advised(out):
    """The commands that a run ends with."""
    lines = re.findall(r"^razorlight ([^\\\n]*(?:\\\n.*)?)", out, re.MULTILINE)
    return [shlex.split(line.replace("\\\n", " ")) for line in lines]


def losses(run):
    with Path(run, "metrics.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    return {row["epoch"]: float(row["train/loss_epoch"]) for row in rows if row["train/loss_epoch"]}


@pytest.mark.parametrize(
    ("config", "root", "options", "run"),
    [
        ("cls_image_folder.yaml", "photos", CLASSES, "runs/image_folder/version_0"),
        ("seg_folder.yaml", "roofs", MASKS, "runs/seg_folder/version_0"),
    ],
)
def test_each_epoch_is_judged_and_each_command_that_is_advised_works(
    request, capsys, config, root, options, run
):
    request.getfixturevalue(root)
    assert fit(config, root, options) == 0
    out, err = capsys.readouterr()
    assert "Epoch 1/1" in out
    assert "logging interval" not in out + err
    assert losses(run).keys() == {"0", "1"}
    commands = advised(out)
    assert [words[0] for words in commands] == ["fit", "validate", "predict"]
    for words in commands:
        assert main(words) == 0, capsys.readouterr().err
    assert losses(run).keys() == {"0", "1", "2", "3"}


@pytest.mark.parametrize("length", [["--trainer.max_steps=1"], ["--trainer.callbacks=[]"]])
def test_advice_of_a_run_that_kept_no_best(photos, capsys, length):
    length = [*length, "--trainer.limit_val_batches=0"]
    assert fit("cls_image_folder.yaml", "photos", [*CLASSES, *length]) == 0
    commands = advised(capsys.readouterr().out)
    assert [words[0] for words in commands] == ["fit", "validate", "predict"]
    for words in commands[1:]:
        assert words[-1] == "last"
        assert main(words) == 0, capsys.readouterr().err
    longer = dict(re.findall(r"--trainer\.(\w+) (\d+)", " ".join(commands[0])))
    assert longer == {"max_epochs": "4"} | ({"max_steps": "2"} if "max_steps" in length[0] else {})


def test_a_run_that_counts_in_steps_names_no_last_epoch(photos, capsys):
    length = ["--trainer.max_epochs=-1", "--trainer.max_steps=3", "--trainer.limit_val_batches=0"]
    assert fit("cls_image_folder.yaml", "photos", [*CLASSES, *length]) == 0
    assert re.search(r"Epoch \d+ (?!/)", capsys.readouterr().out)


def test_validation_may_be_asked_for_by_epochs_alone(photos):
    assert (
        fit("cls_image_folder.yaml", "photos", [*CLASSES, "--trainer.check_val_every_n_epoch=1"])
        == 0
    )
