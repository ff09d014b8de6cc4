"""Optimizers of bitsandbytes and torchao that hold their states in few bits."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from razorlight import step_in_backward
from razorlight.cli import main
from razorlight.memory import storage_bytes
from razorlight.memory.history import read_history

pytest.importorskip("bitsandbytes")
pytest.importorskip("torchao.optim")

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

# bytes of a state's entry, in a matrix whose size is a multiple of 256
OPTIMIZERS = {"torch.optim.AdamW": 1,
    "bitsandbytes.optim.AdamW8bit": 1 + 4 / 256,
    "bitsandbytes.optim.PagedAdamW8bit": 1 + 4 / 256,  # not paged on a CPU
    "bitsandbytes.optim.Lion8bit": (1 + 4 / 256) / 2,  # one state
    "torchao.optim.AdamW8bit": 1 + 4 / 256,
    "torchao.optim.AdamW4bit": 0.5 + 4 / 128,
    "torchao.optim.AdamWFp8": 1 + 4 / 256,
}

CONFIG = """
model:
  class_path: ClassificationTask
  init_args:
    model: vit_tiny_patch16_224
    model_args: {img_size: 32, depth: 1, embed_dim: 64, num_heads: 2}
data:
  class_path: ImageFolder
  init_args: {root: images, image_size: 32, batch_size: 2, num_workers: 0}
trainer:
  max_epochs: 2
  accelerator: cpu
  limit_train_batches: 3
  limit_val_batches: 1
  num_sanity_val_steps: 0
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: runs, name: small}
  callbacks:
    - class_path: BackRazor
    - class_path: MemoryProfiler
      init_args: {compare: false}
    - class_path: ModelCheckpoint
      init_args: {monitor: val/loss}
"""
IN_BACKWARD = "--trainer.callbacks+=razorlight.OptimizerInBackward"
EMA = "--trainer.callbacks+={class_path: EMAWeightAveraging, init_args: {decay: 0.9}}"
RUN = Path("runs/small/version_0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    Path("small.yaml").write_text(CONFIG)
    for number in range(16):
        path = Path("images", ("train", "val")[number // 8], ("dark", "light")[number % 2])
        path.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number * 15,) * 3).save(path / f"{number}.png")


@pytest.fixture
def stop_before_step(monkeypatch):
    def at(step):
        def press(self, batch, batch_idx):
            if self.global_step == step:
                raise KeyboardInterrupt

        monkeypatch.setattr("razorlight.tasks.ClassificationTask.on_train_batch_start", press)

    return at


def fit(optimizer, *options):
    chosen = f"--model.optimizer={{class_path: {optimizer}, init_args: {{lr: 0.001}}}}"
    return main(["fit", "--config", "small.yaml", chosen, *options])


def weights():
    return torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("options", [(), (IN_BACKWARD,), (IN_BACKWARD, EMA)], ids=len)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_by_its_path_in_yaml_and_resumed(optimizer, options, folder, stop_before_step):
    assert fit(optimizer, *options) == 0
    whole, row = weights(), read_history(RUN / "memory.csv")[-2]
    RUN.parent.rename("whole")
    stop_before_step(3)
    assert fit(optimizer, *options) == 130
    stop_before_step(-1)
    assert fit(optimizer, *options, "--ckpt_path", "last") == 0
    resumed = weights()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    print(row)
