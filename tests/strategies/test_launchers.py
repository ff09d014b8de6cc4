"""The command line, started by the standard launchers."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from razorlight.memory.history import read_history

CONFIG = """
model:
  class_path: ClassificationTask
  init_args: {model: test_vit, weights: none}
data:
  class_path: ImageFolder
  init_args: {root: images, image_size: 160, batch_size: 2, num_workers: 0}
trainer:
  max_epochs: 2
  accelerator: cpu
  strategy: ddp
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: runs, name: small}
  callbacks:
    - class_path: BackRazor
    - class_path: MemoryProfiler
    - class_path: ModelCheckpoint
"""
FIT = ["-m", "razorlight", "fit", "--config", "small.yaml"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nodes():
    """Two nodes of one process, by torchrun on loopback."""
    where = ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    for rank in range(2):
        yield [
            *("-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank)),
            *("--nproc_per_node", "1", *where, *FIT, "--trainer.num_nodes", "2"),
        ]


def devices():
    """Lightning's own launcher, which starts the command line again."""
    yield [*FIT, "--trainer.devices", "2"]


@pytest.fixture
def folder(tmp_path):
    Path(tmp_path, "small.yaml").write_text(CONFIG)
    for number in range(16):
        path = Path(tmp_path, "images", ("train", "val")[number // 8], "ab"[number % 2])
        path.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (160, 160), (number * 15,) * 3).save(path / f"{number}.png")
    return tmp_path


def start(arguments, folder):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )


def interruptible():
    # tests that a shell runs in the background ignore it, and so would what they start
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.long
@pytest.mark.parametrize("launch", [nodes, devices])
def test_a_run_of_two_processes_is_written_once(folder, launch):
    started = [start(arguments, folder) for arguments in launch()]
    outputs = [each.communicate(timeout=900)[0] for each in started]
    assert [each.returncode for each in started] == [0] * len(started), outputs
    said = "".join(outputs)
    assert said.count("BackRazor: converted") == said.count("Memory in MiB") == 1, said
    (run,) = (folder / "runs" / "small").iterdir()
    assert run.name == "version_0"
    phases = [(row.epoch, row.phase) for row in read_history(run / "memory.csv")]
    assert phases == [(0, "train"), (0, "val"), (1, "train"), (1, "val")]
    with open(run / "metrics.csv") as file:
        steps = [row["step"] for row in csv.DictReader(file) if row.get("train/loss_step")]
    assert steps == sorted(set(steps))
    assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.long
def test_two_processes_go_on_after_ctrl_c(folder):
    epochs = 30  # enough that it is not at its end when the signal comes
    (arguments,) = devices()
    arguments += ["--trainer.max_epochs", str(epochs)]
    process = start(arguments, folder)
    run = folder / "runs" / "small" / "version_0"
    last = run / "checkpoints" / "last.ckpt"
    while process.poll() is None and not last.is_file():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "interrupted; to go on: razorlight fit" in said

    process = start([*arguments, "--ckpt_path", "last"], folder)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    rows = [(row.epoch, row.phase) for row in read_history(run / "memory.csv")]
    assert rows == [(epoch, phase) for epoch in range(epochs) for phase in ("train", "val")]
    assert torch.load(last, weights_only=True)["global_step"] == 2 * epochs
