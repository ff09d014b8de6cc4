"""``razorlight explain``: how each layer of a run stores."""

import re
import sys

import pytest

from razorlight.cli import main

OPTIONS = [
    "--config=quickstart.yaml",
    "--model.encoder=tu-resnet10t",
    "--model.weights=none",
    "--model.freeze=null",
    "--data.tile_size=32",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])


def explain(capsys, *options):
    assert main(["explain", *OPTIONS, *options]) == 0
    return capsys.readouterr().out


def totals(out):
    return [float(number) for number in re.search(r"^ all +(.*)$", out, re.MULTILINE)[1].split()]


def test_each_layer_and_its_bytes(capsys):
    out = explain(capsys)
    dense, razor = totals(out)
    assert 0 < razor < dense / 3
    rows = re.findall(r"([\d.]+) +([\d.]+) *$", out, re.MULTILINE)
    *rows, total = [[float(size) for size in row] for row in rows]
    for column, size in enumerate(total):
        assert sum(row[column] for row in rows) == pytest.approx(size, abs=0.005 * len(rows))
    assert "BatchNorm2d: 4 bits" in out
    assert ": nothing " in out
    assert "first layer: its input is the batch" in re.sub(r"\s+", " ", out)
    assert "converted " in out
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_gradients_of_a_batch(capsys):
    *_, exact = totals(explain(capsys, "--check_gradients", "--razor.recipe=exact"))
    *_, balanced = totals(explain(capsys, "--check_gradients"))
    assert 0.9999 < exact <= 1
    assert 0.5 < balanced < exact


def test_of_a_dense_run(capsys):
    dense, razor = totals(explain(capsys, "--razor=false"))
    assert dense == razor
