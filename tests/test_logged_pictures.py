"""Pictures of a run in its loggers."""

import sys
from pathlib import Path

import pytest
from small_runs import RUN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from razorlight.cli import main

TENSORBOARD = """\
trainer:
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {save_dir: runs, name: small}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    Path("small.yaml").write_text(RUN)
    Path("tensorboard.yaml").write_text(TENSORBOARD)


def test_tensorboard_shows_validation_memory_and_confusion():
    words = ["--config=small.yaml", "--config=tensorboard.yaml"]
    assert main(["fit", *words, "--trainer.max_epochs=2"]) == 0
    assert main(["validate", *words, "--ckpt_path=last"]) == 0
    shown = [EventAccumulator(f"runs/small/version_{n}").Reload() for n in (0, 1)]
    fit, validation = ({*each.Tags()["images"]} for each in shown)
    assert fit == {"val_0", "val_1", "memory"}
    assert [each.step for each in shown[0].Images("val_0")] == [1, 2]
    assert {"val_0", "val_1", "val_confusion", "memory"} <= validation
    for name in ("val_0", "memory"):  # the files stay where they are
        (file,) = Path("runs/small/version_0").rglob(f"{name}.png")
        assert file.stat().st_size
