"""Every shipped configuration trains and validates for two steps, on data in its set's format."""

import re
from pathlib import Path

import pytest
import yaml
from data import made_classification, made_dense

from razorlight.cli import main
from razorlight.config_files import find_config, shipped_configs

LAYERS = {"dense.yaml", "ema.yaml", "tensorboard.yaml", "debug/fast.yaml"}
MAKERS = {**made_classification.MAKERS, **made_dense.MAKERS}
CLASSIFIERS = {
    "vit": ["--model.model=vit_tiny_patch16_224", "--model.model_args={img_size: 32}"],
    "mobile": ["--model.model=mobilenetv2_035"],
    "resnet": ["--model.model=resnet10t"],
}
"""Small ones, in place of others of their kind."""


def text(name):
    return Path(find_config(name)).read_text()


def stack(name):
    """The configurations that go on one command line, as the comment of the last of them says."""
    if {"model", "data", "trainer"} <= yaml.safe_load(text(name)).keys() and "+:" not in text(name):
        return [name]
    return re.findall(r"--config (\S+)", text(name).partition("\nmodel:")[0])


STACKS = [stack(name) for name in shipped_configs() if name not in LAYERS]


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


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_two_steps(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made_classification.accept_made_files(monkeypatch)
    whole = "".join(map(text, names))
    for name, make in MAKERS.items():
        if f"class_path: {name}\n" in whole or f"class_path: {name}}}" in whole:
            make(tmp_path / "data")
    configs = [word for name in [*names, "debug/fast.yaml"] for word in ("--config", name)]
    assert main(["fit", *configs, *small(whole)]) == 0, capsys.readouterr().err
