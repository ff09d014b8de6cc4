"""The command line: one line and a status for each mistake, and what a run leaves behind."""

import re
import subprocess
import sys

import pytest
from PIL import Image

from razorlight import __version__
from razorlight.cli import RazorCLI, main

SMALL = """
model:
  class_path: SegmentationTask
  init_args: {architecture: Unet, encoder: tu-resnet10t}
data:
  class_path: BlueMarble
  init_args: {tile_size: 32, batch_size: 2}
trainer:
  max_epochs: 1
  accelerator: cpu
  limit_train_batches: 1
  limit_val_batches: 1
  limit_test_batches: 1
  limit_predict_batches: 1
  num_sanity_val_steps: 0
  enable_checkpointing: false
  enable_progress_bar: false
  logger: false
  callbacks:
    - class_path: BackRazor
    - class_path: PredictionWriter
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    return tmp_path


@pytest.fixture
def config(folder):
    path = folder / "small.yaml"
    path.write_text(SMALL)
    return path


def error_line(capsys):
    """The one line on stderr that says what went wrong, where nothing else was said of it."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "usage:" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def test_runs_all_subcommands(config, capsys):
    for subcommand in ("fit", "validate", "test", "predict"):
        assert main([subcommand, "--config", str(config)]) == 0
    captured = capsys.readouterr()
    assert "IoU by class" in captured.out
    assert "Tip" not in captured.err + captured.out
    written = {path.relative_to(config.parent).as_posix() for path in config.parent.rglob("*.png")}
    assert written == {
        *("pictures/val_0.png", "pictures/val_1.png", "val_confusion.png", "test_confusion.png"),
        *("predictions/masks/00000.png", "predictions/masks/00001.png"),
    }


def test_all_of_a_task_can_be_said_in_yaml(config, folder):
    (folder / "photographs").mkdir()
    Image.new("RGB", (50, 40)).save(folder / "photographs" / "a.jpg")
    (folder / "more.yaml").write_text("""
model:
  init_args:
    loss: ce+lovasz
    aux_weight: 0.4
    window: 32
    flip_test: true
    schedule: {shape: poly, warmup_steps: 1}
    lr_multipliers: {net.encoder: 0.1}
data:
  init_args: {predict_folder: photographs}
""")
    for subcommand in ("fit", "predict"):
        assert main([subcommand, "--config", str(config), "--config", "more.yaml"]) == 0
    assert Image.open(folder / "predictions" / "masks" / "a.png").size == (50, 40)


def test_saved_config_runs_again(config):
    assert main(["fit", "--config", str(config)]) == 0
    assert main(["fit", "--config", "config.yaml"]) == 0


def test_later_config_and_options_win(config, folder):
    (folder / "later.yaml").write_text("trainer: {max_epochs: 2}")
    arguments = ["--config", str(config), "--config", "later.yaml", "--data.batch_size=3"]
    cli = RazorCLI(arguments, run=False)
    assert (cli.trainer.max_epochs, cli.datamodule.batch_size) == (2, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_epochs", "max_epohs", "option 'trainer.max_epohs'; did you mean max_epochs?"),
        ("model:", "modle:", "'modle.init_args.architecture'; did you mean model?"),
        ("encoder:", "encodr:", "Option 'encodr' is not accepted; did you mean encoder?"),
        ("tile_size", "tilesize", "Option 'tilesize' is not accepted; did you mean tile_size?"),
        ("BackRazor", "BackRasor", "path string: BackRasor; did you mean BackRazor?"),
        (
            "BackRazor",
            "BackRazor\n      init_args: {sparsty: 1}",
            "did you mean sparsity?",
        ),
        ("batch_size: 2", "batch_size: two", "\"batch_size\": Expected a <class 'int'>.*: two"),
        ("cpu", "${oc.evn:A}", "Unsupported interpolation type oc.evn"),
        ("tile_size: 32", "tile_size: [", "Problems parsing config"),
    ],
)
def test_config_that_does_not_parse(config, capsys, old, new, message):
    config.write_text(SMALL.replace(old, new))
    assert main(["fit", "--config", str(config)]) == 2
    assert re.search(message, error_line(capsys))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'expected "subcommand" to be one of {fit,validate,test,predict}'),
        (["fti"], "invalid choice: 'fti'"),
        (["fit"], "arguments are required: .*model"),
        (["fit", "--config"], "expected 1 argument|expected one argument"),
    ],
)
def test_arguments_that_do_not_parse(capsys, arguments, message):
    assert main(arguments) == 2
    assert re.search(message, error_line(capsys))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.encoder=tu-resnt18"], "'tu-resnt18'; the nearest are tu-resnet18"),
        (["--model.weights=nowhere.pth"], "'nowhere.pth' is no file"),
        (["--model.freeze=[encodr]"], "pattern 'encodr' matches nothing"),
        (["--data=ADE20K", "--data.root=nowhere"], "nowhere"),
        (["--trainer.accelerator=cuda", "--trainer.devices=99"], "CUDA|GPU"),
        (["--trainer.callbacks=BackRazor", "--trainer.callbacks.sparsity=1.5"], "sparsity.*1.5"),
        (["--trainer.callbacks=BackRazor", "--trainer.callbacks.recipe=papr"], "recipe.*papr"),
        (
            ["--trainer.callbacks=BackRazor", "--trainer.callbacks.exclude=[foo]"],
            "'?foo'?.*nothing",
        ),
        (["--config=seg_adk.yaml"], "no file seg_adk.yaml; shipped are seg_ade.yaml"),
    ],
)
def test_mistakes_that_a_run_meets(config, capsys, options, message):
    assert main(["fit", "--config", str(config), *options]) == 1
    assert re.search(message, error_line(capsys))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_out_of_range_names_its_file(config, folder, capsys, workers):
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / "set" / kind / split).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "set" / "images" / split / "a.jpg")
        Image.new("L", (32, 32), 7).save(folder / "set" / "masks" / split / "a.png")
    options = ["--data=SegmentationFolder", f"--data.root={folder / 'set'}", "--data.image_size=32"]
    options += ["--data.classes=[sea,land]", f"--data.num_workers={workers}"]
    assert main(["fit", "--config", str(config), *options]) == 1
    assert re.match(r"error: .*masks/\w+/a.png.*\b7\b", error_line(capsys))


def test_interrupted_run_leaves_its_own_status(config, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("razorlight.tasks.SegmentationTask.on_train_start", interrupt)
    assert main(["fit", "--config", str(config)]) == 130


def test_faults_of_the_program_are_raised(config, monkeypatch):
    def fail(*args):
        raise ValueError("not the user's fault")

    monkeypatch.setattr("razorlight.tasks.SegmentationTask.on_train_start", fail)
    with pytest.raises(ValueError, match="not the user's fault"):
        main(["fit", "--config", str(config)])


def test_help_lists_the_subcommands(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("usage: razorlight", "fit", "predict"))


def test_module_runs_as_a_program():
    command = [sys.executable, "-m", "razorlight", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"razorlight {__version__}\n"
