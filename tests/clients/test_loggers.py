"""Weights & Biases and MLflow as layers of configuration, beside the files of a run."""

import sqlite3
import sys
from pathlib import Path

import pytest
from small_runs import RUN as SMALL

from razorlight.cli import main

pytestmark = pytest.mark.clients


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
        pictures = [path for path in Path.cwd().rglob("*.png") if "artifacts" in path.parts]
        assert {"val_0.png", "memory.png"} <= {path.name for path in pictures}
    else:
        assert [*Path("runs/wandb").glob("offline-run-*/*.wandb")]
        pictures = {path.name for path in Path("runs/wandb").rglob("media/images/*.png")}
        assert {name.partition("_")[0] for name in pictures} == {"val", "memory"}
    words = [f"--config={run / 'config.yaml'}", "--ckpt_path=last", "--trainer.max_epochs=2"]
    assert main(["fit", *words]) == 0
    assert not Path("runs/small/version_1").exists()
