"""``razor``, ``profiler`` and ``writer``: keys, options, and the list of callbacks beside them."""

import re
import sys

import pytest
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from small_runs import RUN as SMALL

from razorlight.callbacks import (
    BackRazor,
    LastCheckpoint,
    MemoryProfiler,
    PredictionWriter,
    RandomState,
    RunSummary,
)
from razorlight.cli import main
from razorlight.cli.training import RazorCLI

FOREIGN = """
model: {class_path: lightning.pytorch.demos.boring_classes.BoringModel}
data: {class_path: lightning.pytorch.demos.boring_classes.BoringDataModule}
trainer: {max_steps: 1, accelerator: cpu, logger: false, enable_progress_bar: false}
"""
LISTED = "trainer: {callbacks: [{class_path: BackRazor, init_args: {recipe: exact}}]}"
OFF = ("--razor=false", "dense")
ALL = [BackRazor, MemoryProfiler, PredictionWriter]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "foreign.yaml").write_text(FOREIGN)
    (tmp_path / "listed.yaml").write_text(LISTED)
    return tmp_path


def made(*words, config="small.yaml"):
    """The callbacks of razorlight that a run has, those of each run left out, by class."""
    cli = RazorCLI([f"--config={config}", *words], run=False)
    everywhere = (RandomState, RunSummary, LastCheckpoint)
    ours = [c for c in cli.trainer.callbacks if type(c).__module__.startswith("razorlight.callb")]
    return {type(c): c for c in ours if not isinstance(c, everywhere)}


def error_line(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def test_all_are_on_by_default():
    callbacks = made()
    assert [*callbacks] == ALL
    assert callbacks[BackRazor].recipe_name == "balanced"


@pytest.mark.parametrize(
    ("key", "kind"),
    [("razor", BackRazor), ("profiler", MemoryProfiler), ("writer", PredictionWriter)],
)
def test_false_leaves_one_out(folder, key, kind):
    (folder / "off.yaml").write_text(f"{key}: false")
    assert {*made(f"--{key}=false")} == {*made("--config=off.yaml")} == {*ALL} - {kind}


def test_arguments_are_options_and_keys(folder):
    (folder / "more.yaml").write_text(
        "razor: {recipe: {name: compact, bits: 4}}\nprofiler: {steps: 3}\nwriter: {count: 8}"
    )
    callbacks = made("--config=more.yaml", "--razor.sparsity=0.5", "--profiler.compare=false")
    assert callbacks[BackRazor].recipe == {"name": "compact", "bits": 4}
    assert callbacks[BackRazor].sparsity == 0.5
    assert (callbacks[MemoryProfiler].steps, callbacks[MemoryProfiler].compare) == (3, False)
    assert callbacks[PredictionWriter].count == 8
    assert made("--razor.memory_budget=8GiB")[BackRazor].memory_budget == 8 * 2**30


def test_a_later_word_wins():
    assert BackRazor not in made("--razor.recipe=compact", "--razor=false")
    assert made("--razor=false", "--razor.recipe=exact")[BackRazor].recipe == "exact"


def test_a_callback_in_the_list_takes_the_place_of_true():
    assert made("--config=listed.yaml")[BackRazor].recipe == "exact"
    assert made("--config=listed.yaml", "--razor=true")[BackRazor].recipe == "exact"
    assert {*made("--config=listed.yaml", "--razor=false")} == {*ALL} - {BackRazor}


@pytest.mark.parametrize(
    "words",
    [
        ["--config=listed.yaml", "--razor.recipe=compact"],
        ["--config=listed.yaml", "--trainer.callbacks+=BackRazor"],
        ["--razor.recipe=compact", "--trainer.callbacks+=BackRazor"],
    ],
)
def test_a_callback_given_twice_is_a_line(capsys, words):
    assert main(["fit", "--config=small.yaml", *words]) == 1
    line = error_line(capsys)
    assert line.startswith("error: razor: BackRazor is given twice; leave it out of trainer.call")
    assert line.endswith("--razor.recipe compact")


def test_other_callbacks_stand_in_the_list():
    words = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    words.append("--trainer.callbacks+=RunSummary")
    cli = RazorCLI(["--config=small.yaml", *words], run=False)
    kinds = [type(each) for each in cli.trainer.callbacks]
    assert {*ALL, EarlyStopping} <= {*kinds}
    assert kinds.count(RunSummary) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--razor.recip=compact"], "razor: BackRazor: Option 'recip' .*; did you mean recipe?"),
        (
            ["--razor=compact"],
            "razor: there is no class compact; give true, false or .* as --razor.recipe compact",
        ),
        (
            ["--profiler=simple"],
            "profiler: .* simple; give true, false or arguments, as --profiler.steps 4",
        ),
        (["--writer.count=many"], "writer: .*count: expected type int, got many"),
        (["--razr=false"], "unrecognized arguments: --razr=false; did you mean razor?"),
        (
            ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.recipe=compact"],
            "trainer.callbacks: ModelCheckpoint: .*; did you mean --razor.recipe?",
        ),
        (["--trainer.callbacks.steps=3"], "did you mean --profiler.steps?"),
    ],
)
def test_mistakes_are_a_line(capsys, words, message):
    assert main(["fit", "--config=small.yaml", *words]) == 2
    assert re.search(message, error_line(capsys))


def test_the_copy_of_a_configuration_runs_again_and_is_resumed(folder, capsys):
    assert main(["fit", "--config=small.yaml", "--razor.recipe=compact", "--writer=false"]) == 0
    copy = folder / "runs/small/version_0/config.yaml"
    saved = yaml.safe_load(copy.read_text())
    assert saved["razor"]["init_args"]["recipe"] == "compact"
    assert (saved["profiler"], saved["writer"]) == (True, False)
    assert f"fit --config {copy.relative_to(folder)} --ckpt_path last" in capsys.readouterr().out
    words = [f"--config={copy}", "--ckpt_path=last", "--trainer.max_epochs=2"]
    assert main(["fit", *words]) == 0
    assert not (folder / "pictures").exists()
    words = [f"--config={copy}", "--ckpt_path=last"]
    assert main(["validate", *words, "--razor=false", "--profiler=false"]) == 0
    assert main(["test", *words, "--trainer.limit_test_batches=1"]) == 0
    assert main(["predict", *words, "--trainer.limit_predict_batches=1", "--writer=true"]) == 0
    assert [*(folder / "runs/small").rglob("predictions/masks/*.png")]


def test_a_module_of_ones_own_has_no_writer_unless_it_is_asked_for():
    assert [*made(config="foreign.yaml")] == [BackRazor, MemoryProfiler]
    assert [*made("--writer=true", config="foreign.yaml")] == ALL
    assert main(["fit", "--config=foreign.yaml", "--razor=false"]) == 0


@pytest.mark.parametrize(("word", "name"), [("--razor.recipe=exact", "exact"), OFF], ids=str)
def test_dry_runs_know_the_keys(capsys, word, name):
    assert main(["estimate", "--config=small.yaml", f"--recipes={name}", word]) == 0
    assert f"{name} *" in capsys.readouterr().out
    assert main(["explain", "--config=small.yaml", word]) == 0
    assert capsys.readouterr().out.startswith(f"{name};")
