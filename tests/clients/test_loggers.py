"""Weights & Biases and MLflow as layers of configuration, beside the files of a run."""

import sqlite3
import sys
from pathlib import Path

import pytest

from razorlight.cli import main

pytestmark = pytest.mark.clients
SMALL = """
model:
  class_path: SegmentationTask
  init_args: {architecture: Unet, encoder: tu-resnet10t, weights: none}
data:
  class_path: BlueMarble
  init_args: {tile_size: 32, batch_size: 2}
trainer:
  max_epochs: 1
  accelerator: cpu
  limit_train_batches: 1
  limit_val_batches: 1
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: runs, name: small}
"""


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_all_files_stay_where_they_are(tmp_path, monkeypatch, name):
    pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    Path("small.yaml").write_text(SMALL)
    words = ["--config=small.yaml", f"--config={name}.yaml"]
    assert main(["fit", *words]) == 0
    run = Path("runs/small/version_0")
    assert {"metrics.csv", "memory.csv", "config.yaml", "pictures", "checkpoints"} <= {
        path.name for path in run.iterdir()
    }
    if name == "mlflow":
        rows = sqlite3.connect("mlflow.db").execute("select distinct key from metrics").fetchall()
        assert {"val/mIoU", "memory/train_peak_mib"} <= {key for (key,) in rows}
    else:
        assert [*Path("runs/wandb").glob("offline-run-*/*.wandb")]
    words = [f"--config={run / 'config.yaml'}", "--ckpt_path=last", "--trainer.max_epochs=2"]
    assert main(["fit", *words]) == 0
    assert not Path("runs/small/version_1").exists()
