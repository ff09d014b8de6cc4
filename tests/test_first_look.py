"""Names that are wrong, and help, cost no import of torch; what is right passes."""

import subprocess
import sys
from argparse import ArgumentError
from importlib import import_module

import pytest
from jsonargparse._parameter_resolvers import get_signature_parameters

from razorlight.cli import main
from razorlight.cli.first_look import look
from razorlight.cli.help import DRY_RUNS
from razorlight.cli.signatures import arguments_of, own_classes, sections
from razorlight.config_files import shipped_configs

PART = "model: {class_path: SegmentationTask}\ndata: {class_path: BlueMarble}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    (tmp_path / "part.yaml").write_text(PART)
    (tmp_path / "wrong.yaml").write_text(PART.replace("e}", "e, init_args: {batch_size: many}}"))
    (tmp_path / "parts.yaml").write_text("model: my/model.yaml\ntrainer: t.yaml\nrazor: true\n")
    return tmp_path


@pytest.mark.parametrize("name", [*own_classes(), "Trainer"])
def test_sources_and_jsonargparse_know_the_same_arguments(name):
    module = f"razorlight.{own_classes()[name]}" if name in own_classes() else "lightning"
    kind = getattr(import_module(module), name)
    real = get_signature_parameters(kind, "__init__")
    assert {*arguments_of(name)} == {parameter.name for parameter in real}


def test_all_arguments_of_callbacks_are_described():
    for key in ("razor", "profiler", "writer"):
        (name,) = sections()[key]
        assert all(argument.help for argument in arguments_of(name).values())


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configurations_pass(name):
    look([f"--config={name}"])


@pytest.mark.parametrize("command", DRY_RUNS)
def test_options_of_every_command_pass(command):
    options = import_module(f"razorlight.cli.{command}").OPTIONS
    for option in [*options, "--device", "--ckpt_path", "--seed_everything", "--print_config"]:
        look(["-c", "part.yaml", option, "1"])


@pytest.mark.parametrize(
    "words",
    [
        "--model.encoder resnet18 --data.batch_size 4 --trainer.max_epochs -1",
        "--model=my.Task --model.whatever 3 --model.init_args.deep.er 4",
        "--model my.Task --data torch.nn.Linear --razor my.Razor --razor.own 3",
        "--razor false --profiler.steps=3 --writer.count 2 --razor.recipe.name compact",
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/loss",
        "--model.optimizer torch.optim.SGD --model.optimizer.lr 1 --check_gradients",
        "--data ImageFolder --data.root=x --data razorlight.data.CIFAR10 --data.download true",
        "--model part.yaml --model.anything 1",
        "--config parts.yaml --model.anything 1 --trainer.max_steps 3",
        "-c quickstart.yaml --model.freeze+ [a]",
        "--trainer.precision 16 --data.batch_size auto --model.window null --trainer.fast_dev_run",
        "--trainer.limit_train_batches 1e-1 --data.num_workers ${oc.env:WORKERS}",
    ],
)
def test_what_is_right_passes(words):
    look(["--config", "part.yaml", *words.split()])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.encodr x", "Option 'encodr' is not accepted"),
        ("--model.init_args.encodr=x", "Option 'encodr' is not accepted"),
        ("--data CIFAR10 --data.tile_size 3", "Option 'tile_size' is not accepted"),
        ("--trainer.max_epohs 3", "unrecognized arguments: --trainer.max_epohs 3"),
        ("--max_epochs 3", "unrecognized arguments: --max_epochs 3"),
        ("--razr false", "unrecognized arguments: --razr false"),
        ("--razor compact", "dot import path string: compact"),
        ("--model SegmentatonTask", "dot import path string: SegmentatonTask"),
        ("--model.aux_weight much", "expected type float, got much"),
        ("extra", "unrecognized arguments: extra"),
    ],
)
def test_what_is_wrong_is_refused(words, message):
    with pytest.raises(ArgumentError, match=message):
        look(["--config", "part.yaml", *words.split()])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit"], "are required: data, model; begin with --config quickstart.yaml"),
        (["fit", "--config", "quikstart.yaml"], "the nearest shipped one is quickstart.yaml"),
        (["fit", "--config", "part.yaml", "--model.encodr=x"], "did you mean encoder?"),
        (["fit", "--config", "part.yaml", "--max_epochs=3"], "did you mean --trainer.max_epochs?"),
        (["explain", "--config", "part.yaml", "--recipe=exact"], "did you mean --razor.recipe?"),
        (["fit", "--help"], "--trainer.max_epochs"),
        (["compare", "--help"], "timed steps of each"),
        (["fit", "--razor.help"], "--razor.memory_budget: str | float | None = None"),
        (["fit", "--data.help", "ImageFolder"], "--data.batch_size: int | Literal['auto'] = 16"),
        (["fit", "--config", "part.yaml", "--trainer.precision", "fp16"], "expected one of 64, 32"),
        (
            ["fit", "--config", "wrong.yaml"],
            "wrong.yaml: data: BlueMarble: batch_size: expec",
        ),
        (["fit", "--model.help=SegmentationTask"], "--model.aux_weight"),
    ],
)
def test_without_torch(folder, words, expected):
    (folder / "torch.py").write_text("raise ImportError('torch was imported')")
    command = [sys.executable, "-m", "razorlight", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert expected in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines()), default=0) <= 80


def test_help_of_other_classes_is_that_of_jsonargparse(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.help=lightning.pytorch.demos.boring_classes.BoringModel"])
    assert "BoringModel" in capsys.readouterr().out
