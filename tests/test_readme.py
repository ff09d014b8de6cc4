"""What the README shows runs as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from data.made_classification import accept_made_files
from small_runs import MAKERS, make_data, small, text

from razorlight.cli import main
from razorlight.config_files import find_config

README = Path(__file__).parents[1].joinpath("README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))


@pytest.mark.parametrize("code", PYTHON, ids=["Lightning", "plain"])
def test_examples(code, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "dense" in run.stdout


def commands():
    """The arguments of razorlight in the README's shell blocks, in their order."""
    for line in SHELL.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "fit" in words and "pip" in words:  # installation and first run
            words = words[words.index("&&") + 3 :]
        if words[:1] == ["razorlight"]:
            yield words[1:]


def made_small(words):
    """One batch of each phase; what a configuration of a run says stays."""
    if words[0] not in ("fit", "predict"):
        return words
    configs = [word for flag, word in pairwise(words) if flag == "--config"]
    once = ["max_epochs", "limit_train_batches", "limit_val_batches", "limit_predict_batches"]
    words = [*words, *(f"--trainer.{name}=1" for name in once), "--trainer.accelerator=cpu"]
    return words if words[0] == "predict" else [*words, *small("".join(map(text, configs)))]


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAZORLIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    accept_made_files(monkeypatch)
    shutil.copytree(Path(find_config("quickstart.yaml")).parent, "configs")
    make_data(
        "".join(text(c) for c in re.findall(r"--config (\S+yaml)", SHELL) if shipped(c)),
        tmp_path / "data",
    )
    MAKERS["SegmentationFolder"](tmp_path / "my_data")
    shutil.copytree(tmp_path / "my_data" / "images" / "val", "photographs")
    run = [*commands()]
    assert len(run) >= 12
    for words in run:
        assert main(made_small(words)) == 0, f"{words}: {capsys.readouterr().err}"
    assert [*Path("runs/seg_folder").rglob("predictions/overlays/*.jpg")]
    assert Path("net.safetensors").is_file()


def shipped(config):
    return (Path(find_config("quickstart.yaml")).parent / config).is_file()


def test_tools_exist():
    for tool in re.findall(r"python (tools/\S+)", README):
        assert Path(__file__).parents[1].joinpath(tool).is_file()
