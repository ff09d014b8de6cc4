"""Mistakes that a newcomer makes: a few lines say what is wrong, where, and the way out."""

import re
import sys

import pytest
from lightning.fabric.loggers import tensorboard
from small_runs import RUN

from razorlight.cli import main
from razorlight.cli.extras import EXTRAS
from razorlight.cli.failures import failure_of
from razorlight.cli.training import RazorCLI
from razorlight.cli.wrong_checkpoint import explain_mismatch

SMALL = f"{RUN}profiler: false\nwriter: false\n"
LAST = "runs/small/version_0/checkpoints/last.ckpt"


class Missing(str):
    """What Lightning knows of a package that is not there."""

    def __bool__(self):
        return False

    def __str__(self):
        return f"Requirement '{self[:]}>=1' not met."


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def error(capsys, status, *words):
    """The message of a mistake, which takes six lines of 80 columns at most."""
    assert main([*words]) == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(line) <= 6 * 80
    return line


PRECISIONS = "expected one of 64, 32, 16, transformer-engine, .*16-mixed, .*got fp16"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trainer.precision fp16", f"trainer.precision: {PRECISIONS}"),
        ("--model.loss cee", "loss: expected one of ce, dice, .*, got cee"),
        ("--seed_everything abc", "seed_everything: expected type bool or int, got abc"),
        ("--model SegmentatonTask", "no class SegmentatonTask; did you mean SegmentationTask"),
        ("--model.optimizer torch.optim.AdamX", "no attribute 'AdamX'; did you mean Adam?"),
        ("--model.optimizer AdmaW", "no class AdmaW; did you mean AdamW?"),
        ("--model.optimizer.lr 1", "name its class first, such as --model.optimizer torch.optim.A"),
        ("--trainer.callbacks+=ModelChekpoint", "ModelChekpoint; did you mean ModelCheckpoint?"),
        ("--trainer.callbacks+=my.Own", "there is no module my; start in its folder, or put this"),
        ("--trainer.logger TensorBoardLoger", "did you mean TensorBoardLogger?"),
        ("--model.optimizer not_there.Lion8bit", 'pip install "razorlight.lowbit.'),
        ("--max_epochs 3", "unrecognized .*; did you mean --trainer.max_epochs?"),
        ("--batch_size 3", "did you mean --data.batch_size?"),
        ("--recipe compact", "did you mean --razor.recipe?"),
        ("--lr 0.1", "did you mean --model.optimizer.lr?"),
        ("--data.encoder resnet18", "data: BlueMarble: .*; did you mean --model.encoder?"),
        ("small.yaml", "did you mean --config small.yaml?"),
    ],
)
def test_in_arguments(capsys, monkeypatch, words, message):
    monkeypatch.setitem(EXTRAS, "not_there", "lowbit")
    assert re.search(message, error(capsys, 2, "fit", "--config=small.yaml", *words.split()))


@pytest.mark.parametrize(
    "option",
    [
        "--trainer.precision=fp16",
        "--trainer.max_epochs=many",
        "--trainer.fast_dev_run=maybe",
        "--trainer.limit_train_batches=half",
        "--model.loss=cee",
        "--data.batch_size=many",
    ],
)
def test_a_first_look_says_what_the_parser_would(capsys, monkeypatch, option):
    first = error(capsys, 2, "fit", "--config=small.yaml", option)
    monkeypatch.setattr("razorlight.cli.first_look.look", lambda words: None)
    assert error(capsys, 2, "fit", "--config=small.yaml", option) == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("max_epochs: 3", "Option 'max_epochs' is not accepted; did you mean trainer.max_epochs?"),
        ("init_args: {batch_size: 3}", "did you mean data.batch_size?"),
        ("callbacks: [EarlyStopping]", "did you mean trainer.callbacks?"),
        ("model: {lr: 3}", "did you mean model.optimizer.lr?"),
        ("trainer: {callbacks: [EarlyStoping]}", "no class EarlyStoping; did you mean EarlyStop"),
        ("just text", "these are no keys with values: just text"),
        (b"\xb8\x00", "can't decode byte 0xb8"),
    ],
)
def test_in_a_file(folder, capsys, content, message):
    path = folder / "more.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = error(capsys, 2, "fit", "--config=small.yaml", "--config=more.yaml")
    assert re.match(f"error: more.yaml: .*{message}", line)


STOPPING = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.logger=WandbLogger"], 'wandb is missing; pip install "razorlight.wandb.'),
        (["--trainer.logger=MLFlowLogger"], 'mlflow is missing; pip install "razorlight.mlflow.'),
        (["--trainer.accelerator=gpus"], "trainer: You selected an invalid accelerator name"),
        (["--trainer.strategy=dp"], "trainer: You selected an invalid strategy name"),
        (
            [*STOPPING, *STOPPING],
            "callbacks: EarlyStopping is given twice; leave one of them",
        ),
        (["--model.num_classes=7"], "model.num_classes: BlueMarble has 2 classes, not 7; leave"),
        (
            ["--model=ClassificationTask", "--model.model=resnet10t"],
            "learns a class for each image, and BlueMarble has a class for each pixel; take Segm",
        ),
        (["--model.optimizer=torch.optim.LBFGS"], "optimizer: LBFGS doesn't support per-param"),
        (["--config=nope.yaml"], "no file nope.yaml; the nearest shipped one is .*yaml, and `raz"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/nope"],
            "Early stopping conditioned on metric `val/nope` which is not available",
        ),
    ],
)
def test_in_a_run(capsys, words, message):
    assert re.search(message, error(capsys, 1, "fit", "--config=small.yaml", *words))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_layer_whose_logger_is_missing(capsys, monkeypatch, name):
    monkeypatch.setattr(
        f"lightning.pytorch.loggers.{name}._{name.upper()}_AVAILABLE", Missing(name)
    )
    line = error(capsys, 1, "fit", "--config=small.yaml", f"--config={name}.yaml")
    assert line.endswith(f'{name} is missing; pip install "razorlight[{name}]"')


def test_tensorboard_is_missing(capsys, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(tensorboard, name, False)
    words = ["--config=small.yaml", "--config=tensorboard.yaml"]
    line = error(capsys, 1, "fit", *words)
    assert line.endswith('tensorboard is missing; pip install "razorlight[tensorboard]"')


def test_a_checkpoint_that_does_not_fit(capsys):
    assert main(["fit", "--config=small.yaml"]) == 0
    words = ["--config=small.yaml", f"--ckpt_path={LAST}", "--trainer.max_epochs=2"]
    line = error(capsys, 1, "fit", *words, "--model.encoder=resnet18")
    assert re.search(
        r"another network: \d+ names of this network are missing [(]net.encoder.\S+, net\S+, ...[)]"
        r", \d+ names of the checkpoint are unknown [(]net.*[)]; take --config runs/small/",
        line,
    )
    line = error(capsys, 1, "fit", *words, "--model.optimizer=torch.optim.SGD")
    assert "was trained by another optimizer, or with other parameters frozen" in line
    line = error(capsys, 1, "fit", *words, "--model.freeze=[net.encoder]")
    assert line.endswith("or begin anew from its weights with --model.weights FILE")


def test_a_head_of_another_size():
    message = (
        "Error(s) in loading state_dict for X:\n\tsize mismatch for net.fc.weight: copying a param "
        "with shape torch.Size([3, 8]) from checkpoint, the shape in current model is "
        "torch.Size([2, 8])."
    )
    line = explain_mismatch(RuntimeError(message), [])
    assert "another network: 1 shapes differ (net.fc.weight has [3, 8] there, [2, 8] here)" in line


@pytest.mark.parametrize(
    "words",
    [["cp", "quickstart.yaml", "small.yaml/x.yaml"], ["export", "--ckpt", "small.yaml"]],
)
def test_of_commands_that_do_not_train(capsys, words):
    error(capsys, 1, *words)


def test_a_folder_that_may_not_be_written(capsys):
    refused = PermissionError(13, "Permission denied", "/far/x.yaml")
    assert failure_of(refused, ["cp"]).line == "Permission denied: /far/x.yaml; give another place"
    line = failure_of(refused, ["fit"]).line
    assert line.startswith("Permission denied: /far/x.yaml; let the run write elsewhere: save_dir")


def test_more_processes_than_cores_are_warned_of(capsys, monkeypatch):
    monkeypatch.setattr("razorlight.cli.training.os.sched_getaffinity", lambda _: {0})
    words = ["--config=small.yaml", "--trainer.devices=2", "--trainer.strategy=ddp"]
    with pytest.warns(UserWarning, match="2 processes share 1 cores, .* leave --trainer.devices"):
        RazorCLI(words, run=False)
