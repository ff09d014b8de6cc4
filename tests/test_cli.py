"""The command line: one line and a status for each mistake, and what a run leaves behind."""

import ast
import re
import subprocess
import sys
import warnings
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from PIL import Image

from razorlight import __version__
from razorlight.cli import main, training
from razorlight.cli.training import RazorCLI
from razorlight.cli.warning_lines import plain_warnings

SMALL = """
model:
  class_path: SegmentationTask
  init_args: {architecture: Unet, encoder: tu-resnet10t}
data:
  class_path: BlueMarble
  init_args: {tile_size: 32, batch_size: 2}
profiler: false
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


MISSING = {
    "ImageFolder": ("ClassificationTask", "no folder nowhere;"),
    "CIFAR10": ("ClassificationTask", "no usable copy in nowhere"),
    "CUB200": ("ClassificationTask", "no usable copy in nowhere"),
    "ADE20K": ("SegmentationTask", "no folder nowhere/ADEChallengeData2016"),
    "VOC2012": ("SegmentationTask", "no usable copy in nowhere"),
    "DepthFolder": ("DepthTask", "no folder nowhere/images;"),
}


DENSE = ["--model.architecture=Unet", "--model.encoder=resnet18"]
NETWORKS = {
    "ClassificationTask": ["--model.model=resnet10t"],
    "SegmentationTask": DENSE,
    "DepthTask": DENSE,
}


@pytest.mark.parametrize("command", ["fit", "validate"])
@pytest.mark.parametrize("name", MISSING)
def test_missing_data_are_said_before_a_network_is_made(monkeypatch, capsys, name, command):
    def made(*args):
        raise AssertionError("a network is made")

    task, message = MISSING[name]
    monkeypatch.setattr("razorlight.tasks.networks._creation_errors", made)
    network = NETWORKS[task]
    words = [command, f"--model={task}", *network, "--model.weights=pretrained", f"--data={name}"]
    words += ["--data.root=nowhere"]
    if name in ("CIFAR10", "VOC2012"):
        words.append("--data.download=false")
    assert main(words) == 1
    assert message in error_line(capsys)


def test_own_warnings_are_lines_without_a_place_in_the_code():
    usual = warnings.formatwarning
    with plain_warnings():
        own = warnings.formatwarning("some class", UserWarning, training.__file__, 1)
        other = warnings.formatwarning("some class", UserWarning, pytest.__file__, 1)
    assert own == "warning: some class\n"
    assert other == usual("some class", UserWarning, pytest.__file__, 1)
    assert warnings.formatwarning is usual


@pytest.mark.parametrize("files", [[], [".hidden.jpg"], ["notes.txt"]])
def test_an_empty_folder_is_said_before_a_network_is_made(folder, monkeypatch, capsys, files):
    monkeypatch.setattr("razorlight.tasks.networks._creation_errors", None)
    for kind in ("images", "masks"):
        (folder / kind / "train").mkdir(parents=True)
        for name in files:
            (folder / kind / "train" / name).touch()
    (folder / "photographs").mkdir()
    words = ["--model=SegmentationTask", *DENSE, "--data=SegmentationFolder", "--data.root=."]
    words += ["--data.classes=[a,b]"]
    assert main(["fit", *words]) == 1
    assert "no images in images/train; SegmentationFolder reads" in error_line(capsys)
    assert main(["predict", *words, "--data.predict_folder=photographs"]) == 1
    assert "no images in photographs; predict_folder is" in error_line(capsys)


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
    schedule: {shape: poly, warmup: 1}
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
        ("max_epochs", "max_epohs", "trainer: Option 'max_epohs' .*; did you mean max_epochs?"),
        ("model:", "modle:", "Option 'modle' is not accepted; did you mean model?"),
        (
            "encoder:",
            "encodr:",
            "model: SegmentationTask: Option 'encodr'.*; did you mean encoder?",
        ),
        ("BackRazor", "BackRasor", "trainer.callbacks: there is no class BackRasor; .* BackRazor?"),
        (
            "BackRazor",
            "BackRazor\n      init_args: {sparsty: 1}",
            "trainer.callbacks: BackRazor: Option 'sparsty'.*; did you mean sparsity?",
        ),
        ("max_epochs: 1", "max_epochs: one", "trainer.max_epochs: expected type int, got one$"),
        (
            "size: 2",
            "size: two",
            "data: BlueMarble: batch_size: expected type int or auto, got two$",
        ),
        (
            "resnet10t",
            "resnet10t, freeze: 3",
            "SegmentationTask: freeze: expected type list, got 3; write it as .3.$",
        ),
        (
            "resnet10t",
            "resnet10t, optimizer: {class_path: torch.optim.AdamWW}",
            "optimizer: .*no attribute 'AdamWW'; did you mean AdamW?",
        ),
        (
            "resnet10t",
            "resnet10t, optimizer: {class_path: torch.optim.AdamW, init_args: {lrr: 1}}",
            r"optimizer: Option 'lrr' is not accepted; did you mean lr[?]$",
        ),
        (", encoder: tu-resnet10t", "", "model: SegmentationTask: .* required: encoder"),
        ("data:", "more:", "Option 'more.init_args.tile_size' is not accepted"),
        ("cpu", "${oc.evn:A}", "Unsupported interpolation type oc.evn"),
        (
            "tile_size: 32",
            "tile_size: [",
            "did not find expected node content in line 7, column 27",
        ),
    ],
)
def test_config_that_does_not_parse(config, capsys, old, new, message):
    config.write_text(SMALL.replace(old, new))
    assert main(["fit", "--config", "small.yaml"]) == 2
    assert re.search(f"error: small.yaml: .*{message}", error_line(capsys))


def test_the_wrong_one_of_two_configs_is_named(config, folder, capsys):
    (folder / "later.yaml").write_text("data: {init_args: {tilesize: 3}}")
    assert main(["fit", "--config", "small.yaml", "--config", "later.yaml"]) == 2
    assert error_line(capsys).startswith("error: later.yaml: data: BlueMarble: Option 'tilesize'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["fti"], "invalid choice: 'fti' .choose from.*'fit'"),
        (["list", "model"], "invalid choice: 'model' .choose from.*'models'"),
        (["fit", "--trainer.max_epohs=3"], "--trainer.max_epohs=3; did you mean max_epochs"),
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
        (["--model.schedule={warmup: 12.5}"], "error: schedule: warmup is 12.5; give a whole"),
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
        (
            ["--trainer.val_check_interval=500"],
            "`val_check_interval` .500. must be less than or equal",
        ),
        (
            ["--config=seg_adk.yaml"],
            "no file seg_adk.yaml; the nearest shipped one is seg_ade.yaml",
        ),
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["fit", "validate", "test", "predict", "list", "cp", "export", "examples:"]),
        (["list", "--help"], ["configs", "models"]),
        (["fit", "-h"], ["--config", "--model.help SegmentationTask"]),
        (["fit", "--help"], ["razorlight fit --config NAME.yaml", "--trainer.max_epochs"]),
    ],
)
def test_help_fits_the_screen(capsys, monkeypatch, arguments, words):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in words)
    if arguments != ["fit", "--help"]:  # Lightning's names are longer
        assert max(map(len, printed.splitlines())) <= 82


def test_module_runs_as_a_program_without_torch(folder):
    (folder / "torch.py").write_text("raise ImportError('torch was imported')")
    for arguments, output in (
        (["--version"], f"razorlight {__version__}\n"),
        (["list", "codecs", "mask"], "mask  One bit an entry"),
        (["list", "models", "vit_tiny_patch16_224"], "# ClassificationTask: model\nvit_tiny"),
        (["cp", "debug/fast.yaml"], "fast.yaml is yours to edit"),
    ):
        command = [sys.executable, "-m", "razorlight", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(output)


def test_output_may_be_cut_off():
    command = f"{sys.executable} -m razorlight list models | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# SegmentationTask")
    assert not done.stderr


def test_cp_never_overwrites(folder, capsys):
    assert main(["cp", "quickstart.yaml"]) == 0
    assert main(["cp", "quickstart.yaml", "new/mine.yaml"]) == 0
    assert (folder / "new/mine.yaml").read_text() == (folder / "quickstart.yaml").read_text()
    (folder / "quickstart.yaml").write_text("edited")
    assert main(["cp", "quickstart.yaml"]) == 1
    assert "cp: quickstart.yaml exists already" in error_line(capsys)
    assert main(["cp", "quikstart.yaml"]) == 1
    assert "no file quikstart.yaml; the nearest shipped one is quickstart.yaml" in error_line(
        capsys
    )
    assert (folder / "quickstart.yaml").read_text() == "edited"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_configs(capsys, shell):
    with pytest.raises(SystemExit):
        main(["--print_completion", shell])
    script = capsys.readouterr().out
    assert "debug/fast.yaml" in script
    assert all(command in script for command in ("validate", "export", "--ckpt_path", "recipes"))


def test_completion_without_its_package(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print_completion", "bash"]) == 1
    assert 'pip install "razorlight[completion]"' in error_line(capsys)


def test_completion_completes_in_bash(folder, capsys):
    with pytest.raises(SystemExit):
        main(["--print_completion", "bash"])
    (folder / "script").write_text(capsys.readouterr().out)
    (folder / "quick.yaml").touch()
    typed = "COMP_WORDS=(razorlight fit --config qui); COMP_CWORD=3; COMP_LINE=; _shtab_razorlight"
    command = ["bash", "-c", f'source ./script; {typed}; echo "${{COMPREPLY[@]}}"']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["quickstart.yaml", "quick.yaml"]


def test_imports_of_the_command_line_run_one_way():
    imports = {}
    for file in Path(training.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("razorlight.cli"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                imports.setdefault(file.stem, []).extend(name.split(".")[2] for name in names)
    order = list(TopologicalSorter(imports).static_order())  # raises for a circle
    assert order[-2:] == ["main", "__init__"]
