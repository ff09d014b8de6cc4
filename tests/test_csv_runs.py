"""Targets in a CSV, by the shipped configurations, through the commands that a user gives."""

import csv
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from data.made_classification import make_csv, write_lines

from razorlight.cli import main

SMALL = ["--data.root=pets", "--data.num_workers=0", "--data.image_size=32", "--data.batch_size=2"]
NET = ["--model.weights=none", "--model.model=resnet10t"]
SHORT = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--profiler=false"]
KINDS = {
    "one class": (
        [*("--config=cls_image_folder.yaml", "--data=ClassificationCSV"), "--data.balanced=true"],
        "image_folder",
    ),
    "classes": (["--config=multilabel_csv.yaml", "--model.pos_weight=auto"], "multilabel_csv"),
    "numbers": (["--config=regression_csv.yaml", "--data.targets=[age,target]"], "regression_csv"),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    make_csv(Path("pets"))


def rows(path):
    with Path(path).open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize(
    ("kind", "report", "predicted", "columns", "card"),
    [
        (
            "one class",
            "test_confusion.png",
            "classes.csv",
            ["class", "probability"],
            "| classes | 2: cat, dog |",
        ),
        (
            "classes",
            "test_classes.csv",
            "labels.csv",
            ["labels", "cat", "dog", "sky"],
            "| classes | 3: cat, dog, sky |",
        ),
        (
            "numbers",
            "test_targets.csv",
            "numbers.csv",
            ["age", "target"],
            "| outputs | age: times 0.853913, plus 1.25, target: times",
        ),
    ],
)
def test_from_a_csv_to_predictions(kind, report, predicted, columns, card, capsys):
    options, name = KINDS[kind]
    assert main(["fit", *options, *SMALL, *NET, *SHORT]) == 0
    run = Path("runs", name)
    again = [f"--config={run}/version_0/config.yaml", "--ckpt_path=last"]
    for command in ("validate", "test", "predict"):
        assert main([command, *again]) == 0, capsys.readouterr().err
    assert (run / "version_2" / report).is_file()
    table = rows(run / "version_3" / "predictions" / predicted)
    assert [row["file"] for row in table] == [f"pets/images/{n}.jpg" for n in (9, 10, 11)]
    assert [*table[0]][1 : 1 + len(columns)] == columns
    assert main(["predict", *again, "--data.predict_folder=pets/images"]) == 0
    table = rows(run / "version_4" / "predictions" / predicted)
    assert len(table) == 12
    checkpoint = f"--ckpt={run}/version_0/checkpoints/last.ckpt"
    onnx = ["--onnx"] if kind == "numbers" else []
    assert main(["export", checkpoint, "--out=net.safetensors", *onnx]) == 0
    assert card in Path("net.md").read_text()
    Path("pets/images").rename("photos")  # neither images with targets nor the CSV are there
    Path("pets").rename("gone")
    words = ["--model", "net.safetensors", "--data.predict_folder", "photos"]
    assert main(["predict", *words, "--data.num_workers=0"]) == 0, capsys.readouterr().err
    alone = rows(Path("runs/net/version_0/predictions", predicted))
    assert [{**row, "file": row["file"].removeprefix("pets/")} for row in table] == [
        {**row, "file": row["file"].replace("photos", "images")} for row in alone
    ]


def test_check_and_preview(capsys):
    options, _ = KINDS["classes"]
    assert main(["check", *options, *SMALL]) == 0
    out = capsys.readouterr().out
    assert "pos_weight: [1, 2, 2]" in out
    assert any(line.split()[:3] == ["dog", "33.33", "2"] for line in out.splitlines())
    assert main(["preview", *options, *SMALL]) == 0
    options, _ = KINDS["numbers"]
    capsys.readouterr()
    assert main(["check", *options, *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["age", "train", "1.25", "0.8539", "0", "2.5"] in [line.split() for line in lines]
    assert main(["preview", *options, *SMALL]) == 0
    assert Path("preview.png").is_file()


def test_check_refuses_what_fit_would(capsys):
    write_lines(Path("pets/table.csv"), ["file,age", *(f"{n}.jpg,3" for n in range(12))])
    options = ["--config=regression_csv.yaml", "--data.targets=[age]", *SMALL]
    assert main(["check", *options]) == 1
    (fault,) = [line for line in capsys.readouterr().out.splitlines() if "fault" in line]
    assert fault.startswith("fault: targets: age is 3 in all training rows")


def test_a_class_that_training_lacks_is_a_warning():
    header, *lines = Path("pets/table.csv").read_text().splitlines()
    write_lines(Path("pets/table.csv"), [f"{header},owl", *(f"{line},0" for line in lines)])
    options = [*KINDS["classes"][0], "--data.labels=[cat,owl]"]
    with pytest.warns(UserWarning, match="MultiLabelCSV: no training image is of 'owl'"):
        assert main(["fit", *options, *SMALL, *NET, *SHORT]) == 0


def test_before_a_run(capsys):
    assert main(["estimate", *KINDS["classes"][0], *SMALL, *NET, "--recipes=balanced"]) == 0
    options = [*KINDS["numbers"][0], *SMALL, *NET, "--recipes=dense,balanced", "--steps=1"]
    assert main(["compare", *options]) == 0
    assert capsys.readouterr().out.count("balanced *") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config=multilabel_csv.yaml", "--data=ClassificationCSV"],
            "learns any number of classes for each image, and ClassificationCSV has a class for",
        ),
        (
            ["--config=regression_csv.yaml", "--data=MultiLabelCSV", "--data.labels=labels"],
            "RegressionTask learns numbers for each image, and MultiLabelCSV has any number of",
        ),
        (
            ["--config=regression_csv.yaml", "--model.num_targets=3"],
            "model.num_targets: RegressionCSV has 1 targets, not 3; leave the number out",
        ),
        (
            ["--config=regression_csv.yaml", "--data.targets=[size]"],
            "no column 'size', only file",
        ),
    ],
)
def test_a_mistake_is_a_line(words, message, capsys):
    assert main(["fit", *words, *SMALL, *NET]) == 1
    out, err = capsys.readouterr()
    assert message in err.replace("\n", " ")
    assert "Traceback" not in out + err


def test_help_and_lists(capsys):
    for words, named in (
        (["list", "datasets"], "MultiLabelCSV "),
        (["list", "configs"], "regression_csv.yaml "),
        (["fit", "--data.help=MultiLabelCSV"], "--data.val_fraction"),
        (["fit", "--model.help=RegressionTask"], "--model.loss"),
    ):
        with suppress(SystemExit):  # of help
            main(words)
        out = capsys.readouterr().out
        assert named in out
    assert "num_targets" not in out
