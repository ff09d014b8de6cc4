"""The command line on small networks, and on small data in the true formats."""

import re
from pathlib import Path

from data import made_classification, made_dense

from razorlight.config_files import find_config

MAKERS = {**made_classification.MAKERS, **made_dense.MAKERS}
CLASSIFIERS = {
    "vit": ["--model.model=vit_tiny_patch16_224", "--model.model_args={img_size: 32}"],
    "mobile": ["--model.model=mobilenetv2_035"],
    "resnet": ["--model.model=resnet10t"],
}
"""Small ones, in place of others of their kind."""

RUN = """\
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
  num_sanity_val_steps: 0
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: runs, name: small}
"""
"""A configuration of one batch."""


def text(name):
    return Path(find_config(name)).read_text()


def small(whole):
    """Arguments that make network and images small; no hub, no accelerator, no processes."""
    arguments = ["--model.weights=none", "--trainer.precision=32-true", "--data.num_workers=0"]
    if "BlueMarble" in whole:  # comes with its images
        return arguments
    kinds = re.findall(r"model: \S*?(vit|mobile|resnet)", whole)
    side = 32 if kinds else 64
    arguments += [f"--data.image_size={side}", "--data.batch_size=2"]
    if kinds:
        arguments += CLASSIFIERS[kinds[-1]]
    if "img_size" in whole:
        arguments += ["--model.model_args.img_size=64"]
    if "window" in whole:
        arguments += ["--model.window=48"]
    return arguments


def make_data(whole, root):
    """The data sets that a configuration's text names, below ``root``."""
    for name, make in MAKERS.items():
        if re.search(rf"class_path: {name}\b", whole):
            make(root)
