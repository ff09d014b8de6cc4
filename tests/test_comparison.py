"""``razorlight compare``, and what it is made of: a step in several ways, side by side."""

import json
import re
import sys

import matplotlib.image
import pytest
import torch
from small_networks import tiny_vit
from torch import nn
from torch.nn.functional import cross_entropy

from razorlight import is_converted
from razorlight.cli import main
from razorlight.comparison import WAYS, Compared, compare, convert_as, recommendation
from razorlight.memory import StepEstimate

MIB = 2**20


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def adamw(model):
    return torch.optim.AdamW(model.parameters())


def a_vit():
    torch.manual_seed(0)
    return tiny_vit(32, 8), (torch.randn(16, 3, 32, 32), torch.randint(3, (16,)))


def test_all_ways():
    model, batch = a_vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = {row.way: row for row in compare(model, loss, batch, adamw, steps=1)}
    assert [*rows] == [*WAYS]
    dense, checkpointing, compact = rows["dense"], rows["checkpointing"], rows["compact"]
    assert dense.cosine == pytest.approx(1)
    assert checkpointing.cosine == pytest.approx(1)
    assert rows["exact"].lowest[1] > 0.9999
    assert 0.9 < compact.lowest[1] < 1
    assert compact.stored < checkpointing.stored < dense.stored / 2
    assert all(row.peak < dense.peak for way, row in rows.items() if way != "dense")
    assert all(row.seconds > 0 and row.instant.startswith("in the ") for row in rows.values())
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("in_backward", [False, True])
def test_figures_are_those_of_the_estimate(in_backward):
    model, batch = a_vit()
    for row in compare(model, loss, batch, adamw, ["dense", "balanced"], 1, in_backward):
        convert_as(model, row.way)
        estimated = StepEstimate(model, loss, adamw, in_backward).memory(batch)
        assert row.stored == estimated.stored
        assert row.peak == pytest.approx(estimated.peak, rel=0.02)


def test_checkpointing_keeps_the_inputs_of_blocks():
    model, batch = a_vit()
    (row,) = compare(model, loss, batch, adamw, ["checkpointing"], 1)
    plan = convert_as(model, "checkpointing")
    assert {line.layer for line in plan.only("converted")} == {"Block"}
    width = model.embed_dim
    tokens = 16 * (16 + 1)
    inputs = 2 * tokens * width * 4
    assert inputs < row.stored < 2.5 * inputs  # the last norm and the head store too


def test_a_network_without_blocks_is_dense_by_checkpointing():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 1))
    assert convert_as(model, "checkpointing") is None


def test_without_memory_for_a_dense_step():
    model, batch = a_vit()

    def step(model, batch):
        if not any(hasattr(layer, "razor_plan") for layer in model.modules()):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return loss(model, batch)

    dense, balanced = compare(model, step, batch, adamw, ["dense", "balanced"], 1)
    assert dense == Compared("dense")
    assert 0.9 < balanced.cosine < 1  # to the gradient by exact


def row(way, peak, seconds, cosine):
    return Compared(way, stored=1, peak=peak * MIB, seconds=seconds, cosine=cosine)


ROWS = [
    row("dense", 100, 1.0, 1.0),
    row("checkpointing", 20, 1.3, 1.0),
    row("exact", 61, 1.1, 1.0),
    row("balanced", 41, 1.2, 0.99),
    row("compact", 40, 1.5, 0.99),
    row("paper", 30, 2.0, 0.3),
]


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (None, "Take balanced (--razor.recipe balanced)"),
        (200, "Take dense (--razor false)"),
        (70, "Take exact"),
        (40, "Take compact"),
        (35, "No way keeps a cosine of 0.98"),
        (25, "No way fits into 25 MiB; paper has the lowest peak, 30.0 MiB"),
    ],
)
def test_recommendation(memory, words):
    assert recommendation(ROWS, memory and memory * MIB).startswith(words)


def test_recommendation_of_nothing():
    assert "take a smaller batch" in recommendation([Compared("dense")])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    return tmp_path


SMALL = ["--config=quickstart.yaml", "--model.encoder=tu-resnet10t", "--model.weights=none"]
SMALL += ["--model.freeze=null", "--data.tile_size=32", "--trainer.accelerator=cpu"]


def test_command(folder, capsys, monkeypatch):
    # on a shared machine a recipe's step may be the faster one, and be recommended
    seconds = {True: 2.0, False: 1.0}

    def timed(trainee, steps):
        return seconds[is_converted(trainee.model)]

    monkeypatch.setattr("razorlight.comparison._Trainee.seconds", timed)
    options = ["--recipes=dense,exact,balanced", "--steps=1", "--memory=8GiB", "--json=c.json"]
    assert main(["compare", *SMALL, *options]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    rows = json.loads((folder / "c.json").read_text())
    assert [row["way"] for row in rows] == ["dense", "exact", "balanced"]
    shown = re.search(r"^ balanced \* +([\d.]+) +([\d.]+)", out, re.MULTILINE)
    assert float(shown[2]) == pytest.approx(rows[2]["peak"] / MIB, abs=0.05)
    assert "Take dense (--razor false)" in out
    assert "Measured on cpu: batch 8 of 3x32x32" in out
    assert "exact: the peak is in the" in out
    assert matplotlib.image.imread(folder / "compare.png").std() > 0
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--steps=0"], "--steps must be at least 1, got 0"),
        (["--recipes="], "recipes: '' is none of dense, checkpointing, balanced"),
        (["--plot=/proc/x.png"], "--plot: cannot write /proc/x.png ("),
        (["--json=/proc/x.json"], "--json: cannot write /proc/x.json ("),
        (["--recipes=smaller"], "recipes: 'smaller' is none of dense, checkpointing, balanced"),
        (["--device=cuda"], "there is no CUDA device here; give --device cpu"),
    ],
)
def test_mistakes(folder, capsys, options, line, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["compare", *SMALL, *options]) == 1
    assert line in capsys.readouterr().err.splitlines()[-1]
