"""Optimizers of bitsandbytes and torchao that hold their states in few bits."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from PIL import Image
from strategies.processes import Processes
from strategies.runs import Module, cosine, loader, parameters, trainer, vit
from torch import nn

from razorlight import step_in_backward
from razorlight.cli import main
from razorlight.memory import storage_bytes
from razorlight.memory.history import read_history

pytest.importorskip("bitsandbytes")
pytest.importorskip("torchao.optim")

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

# bytes of a state's entry in a large matrix, and the number of states
OPTIMIZERS = {
    "bitsandbytes.optim.AdamW8bit": (1 + 4 / 256, 2),
    "bitsandbytes.optim.PagedAdamW8bit": (1 + 4 / 256, 2),  # nothing is paged on a CPU
    "bitsandbytes.optim.Lion8bit": (1 + 4 / 256, 1),
    "torchao.optim.AdamW8bit": (1 + 4 / 256, 2),
    "torchao.optim.AdamW4bit": (1 / 2 + 4 / 128, 2),
    "torchao.optim.AdamWFp8": (1 + 4 / 256, 2),
}
TABLES = 2 * 4 * 256 + 8
"""Bytes of the numbers that codes of 8 bits stand for, in float32, and of the count of steps."""


def class_of(path):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


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
    assert row.optimizer_mib < 0.6 * row.parameters_mib
    assert (row.gradients_mib == 0) == bool(options)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_within_backward_as_after_it(optimizer):
    networks = []
    for within in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 128))
        chosen = class_of(optimizer)(network.parameters(), lr=0.01)
        for _ in range(3):
            loss = network(torch.randn(4, 128)).square().mean()
            if within:
                with step_in_backward(chosen):
                    loss.backward()
                assert network[0].weight.grad is None
            else:
                loss.backward()
            chosen.step()
            chosen.zero_grad()
        networks.append(network.state_dict())
    for name, value in networks[0].items():
        assert torch.equal(networks[1][name], value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_bytes_of_the_states(optimizer):
    weight = nn.Parameter(torch.randn(128, 256))
    chosen = class_of(optimizer)([weight])
    weight.square().sum().backward()
    with torch.compiler.set_stance("force_eager"):
        chosen.step()
    entry, count = OPTIMIZERS[optimizer]
    needed = count * entry * weight.numel()
    assert needed < storage_bytes(chosen.state[weight]) <= needed + TABLES


class LowBit(Module):
    def __init__(self, build, optimizer):
        super().__init__(build)
        self.optimizer = optimizer

    def configure_optimizers(self):
        return class_of(self.optimizer)(self.parameters(), lr=0.001)


def wide_vit():
    return vit(width=64)


def trained(optimizer, batch=8, **options):
    model = LowBit(wide_vit, optimizer)
    trainer("exact", **options).fit(model, loader(batch))
    return parameters(model)


def by_ddp(optimizer):
    return trained(optimizer, batch=4, devices=2, strategy=DDPStrategy())


def test_by_ddp_as_by_one_process(tmp_path):
    processes = Processes(tmp_path / "meeting_point")
    start = parameters(wide_vit())
    for optimizer in OPTIMIZERS:
        first, second = processes.run(by_ddp, optimizer)
        assert np.array_equal(first, second)
        assert cosine(first - start, trained(optimizer) - start) > 0.9
    processes.close()
