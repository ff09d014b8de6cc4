"""Small runs of the command line that are killed and resumed, and what is then looked at."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from PIL import Image

EPOCHS = 3
CONFIG = f"""
seed_everything: 1
model:
  class_path: ClassificationTask
  init_args: {{model: test_resnet, optimizer: {{class_path: torch.optim.Adam}}}}
data:
  class_path: ImageFolder
  init_args: {{root: ../images, image_size: 32, batch_size: 2, num_workers: 0}}
trainer:
  max_epochs: {EPOCHS}
  accelerator: cpu
  limit_train_batches: 2
  limit_val_batches: 1
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {{save_dir: runs, name: small}}
  callbacks:
    - class_path: BackRazor
    - class_path: MemoryProfiler
      init_args: {{compare: false, steps: 1}}
    - class_path: ModelCheckpoint
      init_args: {{monitor: val/loss}}
"""


def make_images(folder):
    for number in range(16):
        path = folder / ("train", "val")[number // 8] / ("dark", "light")[number % 2]
        path.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), (number * 15, 9 * number, 99)).save(path / f"{number}.png")


class Server:
    """Runs ``razorlight fit`` in a folder, to its end or to a kill."""

    def __init__(self):
        script = Path(__file__).with_name("fork_server.py")
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fit(self, folder, *options, **kill):
        folder.mkdir(exist_ok=True)
        (folder / "small.yaml").write_text(CONFIG)
        arguments = ["fit", "--config", "small.yaml", "--ckpt_path", "last", *options]
        job = {"arguments": arguments, "folder": str(folder), **kill}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def checkpoints(folder):
    """All that are there by their names, each read whole."""
    found = sorted(folder.glob("runs/small/*/checkpoints/*.ckpt"))
    return {path: torch.load(path, weights_only=True) for path in found}


def finished_epochs(checkpoint):
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]["total"]["processed"]


def val_losses(run):
    """By epoch, as metrics.csv has them, that each row is whole being checked."""
    return {int(row["epoch"]): row["val/loss"] for row in rows(run) if row.get("val/loss")}


def train_peaks(run):
    """The epochs of which metrics.csv has what was logged when they ended."""
    return {int(row["epoch"]) for row in rows(run) if row.get("memory/train_peak_mib")}


def rows(run):
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        assert None not in row
        assert None not in row.values()
        assert [float(value) for value in row.values() if value]
    return found


def memory_epochs(run):
    path = run / "memory.csv"
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {int(row["epoch"]) for row in csv.DictReader(file) if float(row["peak_mib"])}


def check_nothing_lost(folder):
    """Look at what a killed run left: each file whole, and each epoch that is behind it."""
    for path, checkpoint in checkpoints(folder).items():
        if path.name == "last.ckpt":
            run, behind = path.parents[1], set(range(finished_epochs(checkpoint)))
            assert behind <= val_losses(run).keys()
            assert behind <= train_peaks(run)
            assert behind <= memory_epochs(run)
    for path in folder.glob("runs/small/*/config.yaml"):
        assert yaml.safe_load(path.read_text())["trainer"]["max_epochs"] == EPOCHS


def resumable(folder):
    """The run that ``--ckpt_path last`` goes on with, if there is one."""
    found = list(folder.glob("runs/small/*/checkpoints/last.ckpt"))
    return max(found, key=lambda path: path.stat().st_mtime).parents[1] if found else None
