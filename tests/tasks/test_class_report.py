"""What evaluation leaves of each class: a table, a CSV, and a confusion matrix."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from razorlight.tasks import ClassificationTask, SegmentationTask
from razorlight.tasks.class_report import ClassReport

CONFUSION = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])


def segmenter():
    return SegmentationTask("Unet", "tu-resnet10t", 3)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def printed(table):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


@pytest.mark.parametrize(
    ("score", "expected"), [("accuracy", [0.75, 1.0, None]), ("IoU", [0.75, 0.8, None])]
)
def test_scores_by_class(score, expected):
    assert ClassReport("abc", score, CONFUSION).scores == expected


def test_precision_and_f1_by_class(tmp_path):
    report = ClassReport("abc", "accuracy", CONFUSION)
    assert report.precisions == [1.0, 0.8, None]
    assert report.f1 == [pytest.approx(6 / 7), pytest.approx(8 / 9), None]
    table, _ = report.save(tmp_path, "test")
    rows = read(table)
    assert [row["precision"] for row in rows] == ["1.0", "0.8", ""]
    assert float(rows[0]["F1"]) == pytest.approx(6 / 7)
    assert any("precision" in line and "F1" in line for line in printed(report.table()))


@pytest.mark.parametrize("stage", ["val", "test"])
def test_segmentation_leaves_table_csv_and_picture(trainer, masks, capsys, tmp_path, stage):
    run = trainer()
    (scores,) = (run.validate if stage == "val" else run.test)(segmenter(), masks)
    lines = capsys.readouterr().out.splitlines()
    assert sum("IoU by class" in line for line in lines) == 1
    assert max(len(line) for line in lines if "│" in line) <= 80
    rows = read(tmp_path / f"{stage}_classes.csv")
    assert [row["class"] for row in rows] == list(masks.class_names)
    ious = [float(row["IoU"]) for row in rows if row["IoU"]]
    assert sum(ious) / len(ious) == pytest.approx(scores[f"{stage}/mIoU"])
    assert sum(int(row["true"]) for row in rows) == (masks.dataset.tensors[1] != 255).sum()
    assert rows[2]["true"] == "0"
    assert np.asarray(Image.open(tmp_path / f"{stage}_confusion.png")).std() > 1


def test_classification_counts_images(trainer, classes, capsys, tmp_path):
    (scores,) = trainer().test(ClassificationTask("resnet10t", 3), classes)
    assert "% of images" in capsys.readouterr().out
    rows = read(tmp_path / "test_classes.csv")
    assert [row["true"] for row in rows] == ["1", "2", "1"]
    hits = sum(float(row["accuracy"]) * int(row["true"]) for row in rows)
    assert hits / 4 == pytest.approx(scores["test/accuracy"])


def test_no_report_within_fit_nor_names_without_data_module(trainer, masks, capsys, tmp_path):
    run, task = trainer(), segmenter()
    run.fit(task, masks.train_dataloader(), masks.val_dataloader())
    assert "IoU by class" not in capsys.readouterr().out
    assert not list(tmp_path.glob("*_classes.csv"))
    run.test(task, masks.test_dataloader())
    assert [row["class"] for row in read(tmp_path / "test_classes.csv")] == ["0", "1", "2"]


def test_of_a_thousand_classes_the_table_shows_the_ends(tmp_path):
    confusion = torch.zeros(1000, 1000, dtype=torch.int64)
    confusion[range(1000), range(1000)] = torch.arange(1000)  # of class n: n right, 1000 - n wrong
    confusion[range(1000), range(-1, 999)] += 1000 - torch.arange(1000)
    names = [f"{n} " + "of a long name and yet longer" * 3 for n in range(1000)]
    report = ClassReport(names, "accuracy", confusion)
    lines = printed(report.table())
    shown = [int(line[1:].split()[0]) for line in lines if "of a long" in line]
    assert shown == [*range(10), *range(990, 1000)]
    assert max(map(len, lines)) <= 80
    table, picture = report.save(tmp_path, "test")
    assert len(read(table)) == 1000
    assert Image.open(picture).size[0] < 2000
