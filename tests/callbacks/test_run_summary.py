"""What a run says of itself."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from razorlight.callbacks import BackRazor, LastCheckpoint, MemoryProfiler, RunSummary


class Regressor(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 50), nn.GELU(), nn.Linear(50, 8))
        self.net[0].bias.requires_grad_(False)

    def training_step(self, batch, _):
        return (self.net(batch[0]) ** 2).mean()

    def validation_step(self, batch, _):
        self.log("val/loss", (self.net(batch[0]) ** 2).mean())

    def val_dataloader(self):
        return loader(8)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(samples):
    return DataLoader(TensorDataset(torch.ones(samples, 8)), 4)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Fits in the working directory; gives what was printed."""
    monkeypatch.chdir(tmp_path)

    def fit(*callbacks, stage="fit", first=False, **settings):
        logger = CSVLogger("runs", name="small")
        tmp_path.joinpath(logger.log_dir).mkdir(parents=True)
        tmp_path.joinpath(logger.log_dir, "config.yaml").touch()
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[RunSummary(), *callbacks] if first else [*callbacks, RunSummary()],
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 1, "logger": logger, **settings},
        )
        loaders = [loader(20), loader(8)] if stage == "fit" else [loader(8)]
        getattr(trainer, stage)(Regressor(), *loaders)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return fit


def rows(lines):
    return dict(line.split("  ", 1) for line in lines if "  " in line.strip())


def test_it_begins_with_what_is_run_and_the_saving_measured(run):
    profiler = MemoryProfiler()
    lines = run(BackRazor(include=["net.2"]), profiler)
    assert lines[:3] == [
        "model             Regressor of Sequential",
        "parameters        0.00 M, 0.00 M of them trained",
        "data              20 train, 8 val samples",
    ]
    assert lines[3].split(None, 1) == ["recipe", "balanced: 1 of 3 layers converted"]
    razor, dense = (profiler.compared[mode].stored / 2**20 for mode in ("razor", "dense"))
    assert lines[4].endswith(f"razor {razor:.1f} MiB, dense {dense:.1f} MiB (measured)")


def test_it_reports_what_callbacks_behind_it_measure_and_write(run):
    lines = run(BackRazor(), MemoryProfiler(), first=True)
    assert any(line.endswith("(measured)") for line in lines)
    (written,) = (line for line in lines if "config.yaml," in line)
    assert "memory.png" in written


def test_it_invents_no_saving(run):
    lines = run(MemoryProfiler(compare=False))
    assert lines[2] == "data        20 train, 8 val samples"
    assert not any("measured)" in line for line in lines)


def test_it_ends_with_the_best_the_folder_and_the_commands(run):
    lines = run(ModelCheckpoint(monitor="val/loss"), LastCheckpoint())
    folder = "runs/small/version_0"
    start = next(i for i, line in enumerate(lines) if line.startswith("best"))
    assert lines[start].startswith("best val/loss  ")
    assert lines[start].endswith(", epoch=0-step=5.ckpt")
    assert lines[start + 1 : start + 3] == [
        f"written        {folder}/",
        "               checkpoints/, config.yaml, metrics.csv, metrics.png",
    ]
    assert lines[start + 3 :] == [
        f"razorlight fit --config {folder}/config.yaml --ckpt_path last \\",
        "  --trainer.max_epochs 2",
        f"razorlight validate --config {folder}/config.yaml \\",  # there is no other step
        "  --ckpt_path best",
    ]
    assert max(map(len, lines)) <= 80


def test_other_stages_end_with_the_folder_alone(run):
    lines = run(stage="validate")
    assert [line for line in lines if line.startswith(("model", "best", "razorlight"))] == []
    assert "written  runs/small/version_0/" in lines


@pytest.mark.parametrize(
    "settings", [{"fast_dev_run": True}, {"logger": False, "enable_checkpointing": False}]
)
def test_it_promises_nothing_that_is_not_there(run, settings):
    assert not [line for line in run(**settings) if line.startswith(("written", "razorlight"))]
