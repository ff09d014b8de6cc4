"""``--data.batch_size auto``: the largest batch that fits is found before the run."""

import csv
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CUDAAccelerator
from small_runs import RUN

from razorlight.cli import batch_size, main
from razorlight.conversion import is_converted
from razorlight.data import BlueMarble
from razorlight.tasks import SegmentationTask

ROOM = 11
"""The samples for which there is memory."""


class Tight(SegmentationTask):
    """Runs out of memory with larger batches, and notes those that it met, with their layers."""

    met = []

    def training_step(self, batch, batch_idx):
        self.met.append((len(batch[0]), is_converted(self)))
        if len(batch[0]) > ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().training_step(batch, batch_idx)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    settings = yaml.safe_load(RUN)
    settings["model"]["class_path"] = f"{__name__}.Tight"
    settings["data"]["init_args"]["batch_size"] = "auto"
    settings["trainer"]["limit_train_batches"] = 2
    (tmp_path / "auto.yaml").write_text(yaml.safe_dump(settings))
    Tight.met.clear()


def fit(*options):
    return main(["fit", "--config=auto.yaml", "--data.num_workers=0", *options])


@pytest.mark.parametrize("razor", [True, False])
def test_the_run_takes_what_fits_less_a_margin(razor, monkeypatch, capsys, caplog):
    monkeypatch.setattr(batch_size, "CPUAccelerator", CUDAAccelerator)
    assert fit("--profiler=false", f"--razor={str(razor).lower()}") == 0, capsys.readouterr().err
    assert "data.batch_size: 9, a tenth less than fits" in caplog.text
    assert "trying batch size" not in caplog.text
    *tried, first, second = Tight.met
    assert first == second == (9, razor)
    assert {count for count, _ in tried} == {16, 8, 12, 10, 11}
    assert {converted for _, converted in tried} == {razor}
    with Path("runs/small/version_0/metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)][-1] == "1"  # begun anew


def test_where_no_batch_can_be_found(monkeypatch, capsys):
    assert fit() == 1
    assert "error: data.batch_size: auto fills the memory of a GPU" in capsys.readouterr().err
    monkeypatch.setattr(batch_size, "CPUAccelerator", CUDAAccelerator)
    assert fit("--trainer.devices=2") == 1
    assert "error: data.batch_size: auto is for one process" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_data_alone_take_the_usual_batch():
    data = BlueMarble(batch_size="auto", tile_size=32)
    assert data.blank_batch()[0].shape == (16, 3, 32, 32)
    assert data.batch_size == 16


def test_a_budget_plans_for_a_batch_that_is_known(monkeypatch, capsys):
    monkeypatch.setattr(batch_size, "CPUAccelerator", CUDAAccelerator)
    assert fit("--razor.memory_budget=0.5") == 1
    assert "BatchSizeFinder tries its steps before BackRazor" in capsys.readouterr().err
