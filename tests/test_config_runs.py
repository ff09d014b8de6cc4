"""Every shipped configuration trains and validates for two steps, on data in its set's format."""

import re

import pytest
import yaml
from data.made_classification import accept_made_files
from small_runs import make_data, small, text

from razorlight.cli import main
from razorlight.config_files import shipped_configs

LAYERS = {"dense.yaml", "ema.yaml", "tensorboard.yaml", "debug/fast.yaml"}


def stack(name):
    """The configurations that go on one command line, as the comment of the last of them says."""
    if {"model", "data", "trainer"} <= yaml.safe_load(text(name)).keys() and "+:" not in text(name):
        return [name]
    return re.findall(r"--config (\S+)", text(name).partition("\nmodel:")[0])


STACKS = [stack(name) for name in shipped_configs() if name not in LAYERS]


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_two_steps(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    accept_made_files(monkeypatch)
    whole = "".join(map(text, names))
    make_data(whole, tmp_path / "data")
    configs = [word for name in [*names, "debug/fast.yaml"] for word in ("--config", name)]
    assert main(["fit", *configs, *small(whole)]) == 0, capsys.readouterr().err
