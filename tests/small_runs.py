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
