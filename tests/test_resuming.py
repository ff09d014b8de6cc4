"""Runs that stop and go on, by the command line."""

import csv
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from razorlight.cli import main
from razorlight.conversion import is_converted
from razorlight.memory.history import read_history

CONFIG = """
model:
  class_path: ClassificationTask
  init_args: {model: test_convnext}
data:
  class_path: ImageFolder
  init_args: {root: images, image_size: 32, batch_size: 2, num_workers: 0}
trainer:
  max_epochs: 2
  accelerator: cpu
  limit_train_batches: 3
  limit_val_batches: 1
  limit_test_batches: 1
  num_sanity_val_steps: 0
  log_every_n_steps: 1
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

RUN = Path("runs/small/version_0")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    Path("small.yaml").write_text(CONFIG)
    for number in range(16):
        path = Path("images", ("train", "val")[number // 8], ("dark", "light")[number % 2])
        path.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number * 15,) * 3).save(path / f"{number}.png")
    return tmp_path


@pytest.fixture
def interrupt_before(monkeypatch):
    """Press Ctrl-C before a step of fit; gives the tasks that were interrupted."""
    interrupted = []

    def at(step):
        def press(self, batch, batch_idx):
            if self.global_step == step and not interrupted:
                assert is_converted(self)
                interrupted.append(self)
                raise KeyboardInterrupt

        monkeypatch.setattr("razorlight.tasks.ClassificationTask.on_train_batch_start", press)
        return interrupted

    return at


def fit(*options):
    return main(["fit", "--config", "small.yaml", *options])


def scores(file):
    with open(file, newline="") as lines:
        return [row["val/loss"] for row in csv.DictReader(lines) if row["val/loss"]]


def last_weights():
    return torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--model.schedule={shape: cosine, warmup: 0.5}"],
        ["--data.balanced=true", "--model.class_weights=auto"],
    ],
    ids=["no schedule", "schedule", "balance"],
)
def test_a_run_resumed_at_an_epoch_ends_as_one_that_never_stopped(
    options, interrupt_before, capsys
):
    assert fit(*options) == 0
    whole, weights = scores(RUN / "metrics.csv"), last_weights()
    RUN.parent.rename("whole")

    interrupt_before(3)  # of six
    assert fit(*options) == 130
    hint = f"interrupted; to go on: razorlight fit --config {RUN}/config.yaml --ckpt_path last"
    assert hint in capsys.readouterr().err
    assert fit(*options, "--ckpt_path", "last") == 0
    assert scores(RUN / "metrics.csv") == whole
    assert all(torch.equal(weights[name], value) for name, value in last_weights().items())
    assert [row.epoch for row in read_history(RUN / "memory.csv")] == [0, 0, 1, 1]
    assert not RUN.with_name("version_1").exists()


def test_ctrl_c_within_an_epoch_leaves_its_steps_and_plain_layers(interrupt_before, capsys):
    interrupted = interrupt_before(2)  # of three in the first epoch
    assert fit() == 130
    assert "interrupted; to go on: razorlight fit" in capsys.readouterr().err
    assert not is_converted(interrupted[0])
    last = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (0, 2)
    assert fit("--ckpt_path", "last") == 0
    last = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6
    assert len(list((RUN / "checkpoints").iterdir())) == 2  # the best and the last


def test_ctrl_c_before_the_first_step_says_that_nothing_was_saved(interrupt_before, capsys):
    interrupt_before(0)
    assert fit() == 130
    assert "interrupted; no checkpoint was saved" in capsys.readouterr().err


def test_last_is_that_of_the_newest_run(capsys, caplog):
    assert main(["validate", "--config", "small.yaml", "--ckpt_path", "last"]) == 1
    assert (
        "last: no run of this configuration has one; give the path of a file"
        in capsys.readouterr().err
    )
    for epochs in (1, 2):
        assert fit("--trainer.max_epochs", str(epochs)) == 0
    logger = "--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger"
    with caplog.at_level("INFO"):
        assert main(["validate", "--config", "small.yaml", logger, "--ckpt_path", "last"]) == 0
    newest = RUN.with_name("version_1") / "checkpoints" / "last.ckpt"
    assert f"Loaded model weights from the checkpoint at {newest}" in caplog.text


@pytest.fixture
def two_runs(capsys):
    """Of one configuration, side by side: the first of one epoch, the newer of two."""
    for epochs in (1, 2):
        assert fit("--trainer.max_epochs", str(epochs)) == 0
    capsys.readouterr()
    return RUN, RUN.with_name("version_1")


def epochs_of(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_last_is_that_of_the_run_whose_configuration_is_given(
    two_runs, folder, monkeypatch, elsewhere
):
    older, newer = (run.absolute() for run in two_runs)
    before = (newer / "metrics.csv").read_text(), last_bytes(newer)
    config, root = (
        older.relative_to(folder) / "config.yaml",
        ["--data.root", str(folder / "images")],
    )
    if elsewhere:
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")
        config = Path("..") / config
    options = ["--trainer.max_epochs=3", *root]
    assert main(["fit", "--config", str(config), *options, "--ckpt_path", "last"]) == 0
    assert epochs_of(older) == 3
    assert len(scores(older / "metrics.csv")) == 3
    assert ((newer / "metrics.csv").read_text(), last_bytes(newer)) == before
    assert len(list((older / "checkpoints").iterdir())) == 2  # the best so far was known
    assert {path.name for path in older.parent.iterdir()} == {"version_0", "version_1"}
    assert not list(Path.cwd().glob("runs")) or not elsewhere


def last_bytes(run):
    return (run / "checkpoints" / "last.ckpt").read_bytes()


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize("command", ["validate", "predict"])
def test_other_commands_take_the_run_whose_configuration_is_given(two_runs, caplog, which, command):
    older, _ = two_runs
    with caplog.at_level("INFO"):
        assert main([command, "--config", str(older / "config.yaml"), "--ckpt_path", which]) == 0
    [path] = re.findall(r"Loaded model weights from the checkpoint at (\S+)", caplog.text)
    assert Path(path).parent == older / "checkpoints"
    assert (Path(path).name == "last.ckpt") == (which == "last")
    assert f"ckpt_path: {Path(path).name} of {older}, whose config.yaml" in caplog.text


def test_a_moved_run_goes_on_where_it_lies(two_runs, folder):
    two_runs[0].rename("moved")
    options = ["--config", "moved/config.yaml", "--trainer.max_epochs=2"]
    assert main(["fit", *options, "--ckpt_path", "last"]) == 0
    assert epochs_of(Path("moved")) == 2
    assert len(list(Path("moved/checkpoints").iterdir())) == 2
    assert main(["validate", *options, "--ckpt_path", "best"]) == 0


def test_last_is_of_a_run_of_the_same_network_and_data(two_runs, capsys, caplog):
    _, newer = two_runs
    other = ["--data.split_seed=1"]
    assert main(["validate", "--config", "small.yaml", *other, "--ckpt_path", "last"]) == 1
    assert "ckpt_path: last: no run of this configuration has one" in capsys.readouterr().err
    other = ["--model.model=test_resnet"]
    assert main(["validate", "--config", "small.yaml", *other, "--ckpt_path", "last"]) == 1
    assert "ckpt_path: last: no run of this configuration has one" in capsys.readouterr().err
    assert fit(*other, "--trainer.max_epochs=1") == 0
    with caplog.at_level("INFO"):
        assert main(["validate", "--config", "small.yaml", "--ckpt_path", "last"]) == 0
    assert f"ckpt_path: last.ckpt of {newer}, the newest of this configuration" in caplog.text


def test_a_run_that_kept_no_last_begins_anew_and_says_it(two_runs, caplog, capsys):
    older, _ = two_runs
    (older / "checkpoints" / "last.ckpt").unlink()
    given = ["--config", str(older / "config.yaml"), "--trainer.max_epochs=1"]
    assert main(["predict", *given, "--ckpt_path", "last"]) == 1
    assert "version_0 has no last.ckpt; give the path of a file" in capsys.readouterr().err
    assert main(["predict", *given, "--ckpt_path", "best"]) == 1
    assert "version_0 kept no best checkpoint; give `last`" in capsys.readouterr().err
    with caplog.at_level("INFO"):
        assert main(["fit", *given, "--ckpt_path", "last"]) == 0
    assert "version_0 has no last.ckpt; a new run begins" in caplog.text
    assert epochs_of(RUN.with_name("version_2")) == 1


def test_last_without_a_logger_is_in_the_working_directory():
    plain = ["--trainer.logger=false", "--trainer.max_epochs=1"]
    assert fit(*plain) == 0
    assert main(["validate", "--config", "small.yaml", *plain, "--ckpt_path", "last"]) == 0
