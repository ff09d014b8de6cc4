"""What the pages of the documentation show runs as it stands there, and they leave nothing out."""

import ast
import doctest
import re
import shlex
import shutil
import sys
from copy import deepcopy
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from data.made_classification import accept_made_files
from nbclient import NotebookClient
from pages import PAGES, README, ROOT, blocks, run_apart, run_python, shell
from small_runs import MAKERS, make_data, small, text

import razorlight
import razorlight.callbacks
import razorlight.codecs
import razorlight.data
import razorlight.tasks
from razorlight.cli import main
from razorlight.config_files import find_config

DOCS = ROOT / "docs"
WITH_CODE = [page for page in PAGES if blocks(page.read_text(), "python")]
COMMANDS = shell(README, *(DOCS / f"{name}.md" for name in ("command_line", "configurations")))


MARK = "-- the next block --"


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code(page, tmp_path, monkeypatch, capsys):
    """The blocks of a page are one program; a block of text says what the one before prints."""
    monkeypatch.chdir(tmp_path)
    shown = blocks(page.read_text(), "python", "text")
    programs = [code for language, code in shown if language == "python"]
    whole = f"\nprint({MARK!r})\n".join(programs)
    if "register(" in whole:  # which stays registered
        printed = run_apart(whole, tmp_path)
    else:
        run_python(whole)
        printed = capsys.readouterr().out
    outputs = printed.split(f"{MARK}\n")
    for (_, code), (language, expected) in pairwise(shown):
        if language == "text":
            assert outputs[programs.index(code)].endswith(expected)


@pytest.mark.parametrize("example", ["plain_loop", "lightning_project"])
def test_examples(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_python((DOCS / f"examples/{example}.py").read_text())
    assert "dense" in capsys.readouterr().out


def test_notebook(tmp_path):
    shipped = nbformat.read(DOCS / "examples/notebook.ipynb", as_version=4)
    ran = deepcopy(shipped)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(ran, timeout=300, resources=resources).execute()  # raises what a cell raises

    def compared(notebook):
        texts = [out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", [])]
        return re.findall(r"^(\w+) +([\d.]+) MiB stored", "".join(texts), re.MULTILINE)

    assert len(compared(ran)) == 5
    assert compared(ran) == compared(shipped)


@pytest.mark.clients
def test_example_of_transformers(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    run_python((DOCS / "examples/transformers_trainer.py").read_text())
    assert "after 4 steps" in capsys.readouterr().out


@pytest.mark.clients
def test_example_of_a_search(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    run_python((DOCS / "examples/sweep.py").read_text())
    assert "best mIoU 0." in capsys.readouterr().out


def commands():
    """The arguments of razorlight in the shell blocks, in their order."""
    for line in COMMANDS.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "-m"]:  # before it is installed
            words = words[2:]
        if words[:1] == ["razorlight"]:
            yield words[1:]


def made_small(words):
    """One batch of each phase; what a configuration of a run says stays."""
    configs = [word for flag, word in pairwise(words) if flag == "--config"]
    if words[0] == "estimate":  # to search a batch takes long
        words = ["--recipes=balanced" if w == "--memory" else w for w in words if "GiB" not in w]
    if words[0] == "compare":
        words = [*words, "--recipes=dense,balanced", "--steps=1"]
    if words[0] in ("compare", "estimate", "explain"):
        net = ["--model.architecture=Unet", "--model.encoder=resnet18", "--model.model_args=null"]
        return [*words, *small("".join(map(text, configs))), *net]
    if words[0] not in ("fit", "predict"):
        return words
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
        "".join(text(c) for c in re.findall(r"--config (\S+yaml)", COMMANDS) if shipped(c)),
        tmp_path / "data",
    )
    MAKERS["SegmentationFolder"](tmp_path / "my_data")
    MAKERS["ImageFolder"](tmp_path / "photos")
    shutil.copytree(tmp_path / "my_data" / "images" / "val", "photographs")
    run = [*commands()]
    assert len(run) >= 12
    for words in run:
        assert main(made_small(words)) == 0, f"{words}: {capsys.readouterr().err}"
    assert [*Path("runs/seg_folder").rglob("predictions/overlays/*.jpg")]
    assert Path("net.safetensors").is_file()


def shipped(config):
    return (Path(find_config("quickstart.yaml")).parent / config).is_file()


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_tools_exist(page):
    for tool in re.findall(r"python (tools/\S+\.py)", page.read_text()):
        assert (ROOT / tool).is_file()


def sentences():
    """Every text in the sources, with ``...`` for its expressions."""
    for file in (ROOT / "razorlight").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", "") for part in node.values]
                yield "...".join(part if isinstance(part, str) else "" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_lines_of_troubleshooting_are_those_of_the_sources():
    page = (DOCS / "troubleshooting.md").read_text()
    lines = re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)
    known = [*sentences()]
    assert len(lines) >= 15
    for line in lines:
        pattern = ".*".join(re.escape(part) for part in line.split("..."))
        assert any(re.search(pattern, sentence, re.DOTALL) for sentence in known), line


PUBLIC = {
    "razorlight": set(razorlight.__all__) - {"RECIPES"},
    "razorlight.callbacks": set(razorlight.callbacks.__all__) - set(razorlight.__all__),
    "razorlight.data": razorlight.data.__all__,
    "razorlight.tasks": razorlight.tasks.__all__,
}

EXAMPLES = {
    "razorlight": PUBLIC["razorlight"],
    "razorlight.callbacks": PUBLIC["razorlight.callbacks"],
    "razorlight.codecs": {"parse_codec"},
    "razorlight.data": PUBLIC["razorlight.data"],
    "razorlight.memory": {"measure_step"},
    "razorlight.tasks": PUBLIC["razorlight.tasks"],
}


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in EXAMPLES.items() for name in sorted(names)],
)
def test_docstrings_have_examples_that_run(module, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    accept_made_files(monkeypatch)
    MAKERS.get(name, MAKERS["SegmentationFolder"])(tmp_path / "data")
    (tmp_path / "my_data").symlink_to(tmp_path / "data")
    public = getattr(import_module(module), name)
    examples = doctest.DocTestFinder().find(public, name, globs={name: public})
    assert examples[0].examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for each in examples:
        runner.run(each)
    assert not runner.summarize().failed


def test_reference_has_every_public_name():
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    assert {f"{module}.{name}" for module, names in PUBLIC.items() for name in names} <= shown
