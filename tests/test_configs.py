"""The shipped configurations: found by name, from a wheel too; each parses and instantiates."""

import shutil
import sys
from importlib import util
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from data.made_classification import make_csv, make_image_folder
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from razorlight.callbacks import (
    BackRazor,
    LastCheckpoint,
    MemoryProfiler,
    PredictionWriter,
    RunSummary,
)
from razorlight.cli.training import RazorCLI
from razorlight.config_files import find_config, shipped_configs, shipped_folder
from razorlight.errors import RazorError

CHECKOUT = Path(__file__).parents[1]
EVERYWHERE = {LastCheckpoint, RichProgressBar, RunSummary}
CONFIGS = sorted(
    path.name
    for path in shipped_folder().glob("*.yaml")
    if {"model", "data"} <= yaml.safe_load(path.read_text()).keys()
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Bare names must not depend on the working directory, nor the parser on pytest's arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    make_image_folder(tmp_path / "data")  # its classes are the folders it has
    make_csv(tmp_path / "data")  # its classes are in the cells it has


def instantiate(*names, overrides=()):
    """Model, data and trainer as ``fit`` would make them."""
    configs = [word for name in names for word in ("--config", name)]
    return RazorCLI([*configs, *overrides], run=False)


def callbacks(cli):
    """What the configuration asked for, and the command line adds."""
    ours = (BackRazor, PredictionWriter, MemoryProfiler, EMAWeightAveraging, ModelCheckpoint)
    ours += (RichProgressBar, RunSummary)
    return {type(callback) for callback in cli.trainer.callbacks if isinstance(callback, ours)}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_instantiates(name):
    # no hub: random weights; no accelerator: full precision
    cli = instantiate(name, overrides=["--model.weights=none", "--trainer.precision=32-true"])
    assert {BackRazor, MemoryProfiler, PredictionWriter, ModelCheckpoint} <= callbacks(cli)
    assert callbacks(cli) >= EVERYWHERE
    assert cli.trainer.checkpoint_callback.monitor in dict(cli.model.val_metrics.items())
    assert cli.model.schedule is not None


def test_a_dense_run_leaves_only_the_razor_out():
    options = ["--model.weights=none"]
    razor = instantiate("quickstart.yaml", overrides=options)
    dense = instantiate("quickstart.yaml", overrides=[*options, "--razor=false"])
    assert callbacks(dense) == callbacks(razor) - {BackRazor}
    assert {MemoryProfiler, PredictionWriter, ModelCheckpoint, *EVERYWHERE} <= callbacks(dense)


def test_ema_layer_adds_to_the_callbacks():
    alone = instantiate("quickstart.yaml", overrides=["--model.weights=none"])
    cli = instantiate("quickstart.yaml", "ema.yaml", overrides=["--model.weights=none"])
    assert callbacks(cli) == {*callbacks(alone), EMAWeightAveraging}


def test_fast_layer_limits_the_run_and_leaves_the_rest():
    cli = instantiate("quickstart.yaml", "debug/fast.yaml", overrides=["--model.weights=none"])
    trainer = cli.trainer
    assert (trainer.max_steps, trainer.limit_val_batches, trainer.limit_test_batches) == (2, 2, 2)
    assert {BackRazor, MemoryProfiler, PredictionWriter} <= callbacks(cli)


def test_tensorboard_layer_keeps_the_folder():
    cli = instantiate("quickstart.yaml", "tensorboard.yaml", overrides=["--model.weights=none"])
    (logger,) = cli.trainer.loggers
    assert isinstance(logger, TensorBoardLogger)
    assert Path(logger.root_dir) == Path("runs/quickstart")


def test_data_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RAZORLIGHT_DATA", str(tmp_path))
    cli = instantiate("seg_ade.yaml", overrides=["--model.weights=none"])
    assert cli.datamodule.root == tmp_path
    monkeypatch.delenv("RAZORLIGHT_DATA")
    cli = instantiate("seg_ade.yaml", overrides=["--model.weights=none"])
    assert cli.datamodule.root == Path("data")


def test_paths_come_before_shipped_names(tmp_path):
    assert Path(find_config("debug/fast.yaml")) == CHECKOUT / "configs/debug/fast.yaml"
    (tmp_path / "seg_ade.yaml").touch()
    assert find_config("seg_ade.yaml") == "seg_ade.yaml"


def test_unknown_config_names_the_nearest():
    with pytest.raises(
        RazorError, match=r"no file seg_adk.yaml; the nearest shipped one is seg_ade.yaml"
    ):
        find_config("seg_adk.yaml")


def test_installed_package_finds_its_own_copy(tmp_path):
    package = tmp_path / "site-packages" / "razorlight"
    shutil.copytree(CHECKOUT / "configs", package / "configs")
    installed = shutil.copy(CHECKOUT / "razorlight" / "config_files.py", package)
    spec = util.spec_from_file_location("installed_config_files", installed)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.find_config("seg_ade.yaml") == str(package / "configs" / "seg_ade.yaml")


def test_wheel_holds_configs_and_modules(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    (built,) = wheel.WheelBuilder(str(CHECKOUT)).build(
        directory=str(tmp_path), versions=["standard"]
    )
    names = set(ZipFile(built).namelist())
    modules = (CHECKOUT / "razorlight").rglob("*.py")
    assert {path.relative_to(CHECKOUT).as_posix() for path in modules} <= names
    assert {f"razorlight/configs/{name}" for name in shipped_configs()} <= names
