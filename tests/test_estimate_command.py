"""``razorlight estimate``: the memory of a run, before the run."""

import json
import re
import sys

import pytest
import torch
from lightning import LightningDataModule
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch import nn
from torch.utils.data import DataLoader

from razorlight import RECIPES, RazorError
from razorlight.cli import main
from razorlight.cli.estimate import largest_batch
from razorlight.memory.amounts import parse_bytes

SMALL = """
model:
  class_path: ClassificationTask
  init_args:
    model: vit_tiny_patch16_224
    weights: pretrained
    model_args: {img_size: 32, depth: 2}
    schedule: {shape: cosine}
data:
  class_path: CIFAR10
  init_args: {root: nowhere, image_size: 32, batch_size: 4, num_workers: 0}
trainer:
  max_epochs: 1
  accelerator: gpu
  devices: 8
  precision: 16-mixed
  callbacks:
    - class_path: BackRazor
    - class_path: MemoryProfiler
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def estimate(*options):
    return main(["estimate", "--config", "small.yaml", *options])


def test_without_weights_data_or_gpu(folder, capsys):
    assert estimate("--memory=24MiB", "--json=figures.json", "--recipes=dense,balanced") == 0
    out = capsys.readouterr().out
    assert "batch 4 of 3x32x32, 16-mixed" in out
    assert max(map(len, out.splitlines())) <= 80
    rows = {row["name"]: row for row in json.loads((folder / "figures.json").read_text())}
    assert [*rows] == ["dense", "balanced"]
    for name, row in rows.items():
        label = f"{name} *" if name == "balanced" else name
        assert re.search(rf"^ {re.escape(label)} .* {row['largest_batch']}", out, re.MULTILINE)
        assert row["peak_in_backward"] is None
        assert row["largest_batch"] > 4
    assert rows["balanced"]["stored"] < rows["dense"]["stored"] / 2
    assert rows["balanced"]["largest_batch"] > rows["dense"]["largest_batch"]
    assert "In backward: not in this run, whose gradients are scaled." in out
    assert "balanced:\npeak " in out
    assert "Estimated on cuda" in out  # the accelerator is gpu
    assert "CUDA" in out
    assert not [*folder.glob("runs")]


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("gradient_clip_val=1.0", "clipped by norm"),
        ("accumulate_grad_batches=2", "accumulated"),
        ("gradient_clip_algorithm=value", ""),
    ],
)
def test_a_step_within_backward_where_the_run_may_have_one(folder, capsys, option, why):
    options = ["--trainer.precision=32-true", "--recipes=dense", "--json=figures.json"]
    assert estimate(*options, f"--trainer.{option}") == 0
    (row,) = json.loads((folder / "figures.json").read_text())
    if why:
        assert row["peak_in_backward"] is None
        assert f"not in this run, whose gradients are {why}." in capsys.readouterr().out
    else:
        assert row["peak_in_backward"] <= row["peak"]


def test_as_the_run_measures(folder, capsys):
    options = ["--config=quickstart.yaml", "--model.encoder=tu-resnet10t", "--model.weights=none"]
    options += ["--model.freeze=null", "--data.tile_size=32", "--trainer.limit_train_batches=2"]
    options += ["--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    assert main(["estimate", *options, "--recipes=balanced", "--json=figures.json"]) == 0
    (row,) = json.loads((folder / "figures.json").read_text())
    assert main(["fit", *options, "--trainer.max_epochs=1"]) == 0
    (history,) = folder.rglob("memory.csv")
    header, train, *_ = history.read_text().splitlines()
    measured = dict(zip(header.split(","), train.split(","), strict=True))
    assert row["stored"] / 2**20 == pytest.approx(float(measured["stored_mib"]), abs=0.001)
    assert row["peak"] / 2**20 == pytest.approx(float(measured["peak_mib"]), rel=0.02)


def test_of_a_budget(folder, capsys):
    text = SMALL.replace("BackRazor", "BackRazor\n      init_args: {memory_budget: 0.9}")
    (folder / "small.yaml").write_text(text.replace("batch_size: 4", "batch_size: 64"))
    assert estimate("--recipes=dense,by budget", "--json=figures.json") == 0
    dense, budget = json.loads((folder / "figures.json").read_text())
    assert 0.7 * dense["peak"] < budget["peak"] <= 0.9 * dense["peak"]
    assert "by budget:\npeak " in capsys.readouterr().out


class Model(BoringModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 2))


class Rows(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(RandomDataset(32, 8), batch_size=4)


def configure(folder, model, data):
    paths = [f"{kind.__module__}.{kind.__qualname__}" for kind in (model, data)]
    text = "model: {class_path: MODEL}\ndata: {class_path: DATA}\n"
    (folder / "small.yaml").write_text(text.replace("MODEL", paths[0]).replace("DATA", paths[1]))


def test_modules_of_others(folder, capsys):
    configure(folder, Model, Rows)
    assert estimate("--memory=100KiB") == 0
    out = capsys.readouterr().out
    assert "batch 4 of 32, 32-true" in out
    assert "balanced *" in out
    assert all(f" {recipe} " in out for recipe in RECIPES)


class Lists(Rows):
    def train_dataloader(self):
        return [super().train_dataloader()]


class Uneven(Rows):
    def train_dataloader(self):
        return DataLoader(
            [(torch.zeros(32), 0)] * 8,
            4,
            collate_fn=lambda rows: [torch.zeros(4, 32), torch.zeros(3)],
        )


class NeedsTrainer(Model):
    def configure_optimizers(self):
        return super().configure_optimizers() if self.trainer else None


class Two(Model):
    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1)] * 2


@pytest.mark.parametrize(
    ("model", "data", "line"),
    [
        (NeedsTrainer, Rows, "configure_optimizers of NeedsTrainer fails without a trainer ("),
        (Two, Rows, "configure_optimizers of Two gives 2 optimizers"),
        (Model, Lists, "Lists.train_dataloader gives no DataLoader"),
        (Model, Uneven, "the tensors of a batch have [3, 4] entries along their first dim"),
    ],
)
def test_modules_that_cannot_be_estimated(folder, capsys, model, data, line):
    configure(folder, model, data)
    assert estimate("--recipes=dense") == 1
    assert line in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--device=tpu"], "device"),
        (["--memory=lots"], "'lots' is no amount of memory; give one such as 8GiB or 500MiB"),
        (["--recipes=compact,smaller"], "recipes: 'smaller' is none of dense, checkpointing"),
        (["--trainer.precision=transformer-engine"], "precision transformer-engine is unknown"),
        (["--data.image_size=48"], "the step cannot be estimated (Input height (48)"),
        (["--data.image_sizes=48"], "image_sizes"),
    ],
)
def test_mistakes_are_a_line(capsys, options, line):
    assert estimate(*options) in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert line in error


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 2**33), ("1.5 gb", 3 * 2**29), ("500M", 500 * 2**20)]
)
def test_amounts(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "8", "GiB", "-1GiB", "0GiB"])
def test_no_amounts(text):
    with pytest.raises(RazorError, match="is no amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize("memory", [0, 999, 1000, 1010, 1500, 4096, 10**6])
@pytest.mark.parametrize("first", [1, 7, 500])
def test_the_largest_batch(memory, first):
    def peak(count):
        return max(990 + 10 * count, 500 + 25 * count)  # the instant of the peak changes

    found = largest_batch(peak, memory, first, first // 2 or 2)
    exact = max([n for n in range(1, 50_000) if peak(n) <= memory], default=0)
    assert 0.98 * exact - 1 < found <= exact
