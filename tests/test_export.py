"""The network out of a checkpoint, for those without razorlight."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from razorlight.callbacks import BackRazor
from razorlight.cli import main
from razorlight.tasks import ClassificationTask, SegmentationTask

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def fit(task, targets, folder, *callbacks):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[BackRazor(), *callbacks],
    )
    samples = list(zip(IMAGES, targets, strict=True))
    trainer.fit(task, DataLoader(samples, 2))
    trainer.save_checkpoint(folder / "trained.ckpt")
    return folder / "trained.ckpt"


def export(checkpoint, out):
    assert main(["export", "--ckpt", str(checkpoint), "--out", str(out)]) == 0
    return load_file(out)


@pytest.mark.parametrize("averaging", [[], [EMAWeightAveraging()]], ids=["plain", "EMA"])
def test_timm_loads_it_strictly(tmp_path, averaging):
    task = ClassificationTask("test_efficientnet", 3)
    checkpoint = fit(task, torch.tensor([0, 1, 2, 0]), tmp_path, *averaging)
    net = timm.create_model("test_efficientnet", num_classes=3).eval()
    net.load_state_dict(export(checkpoint, tmp_path / "net.safetensors"), strict=True)
    torch.testing.assert_close(net(IMAGES), task.eval()(IMAGES))


def test_smp_loads_it_strictly(tmp_path, capsys):
    task = SegmentationTask("Unet", "tu-test_efficientnet", 2, loss="dice", class_weights=None)
    task.to(memory_format=torch.channels_last)
    checkpoint = fit(task, torch.zeros(4, 32, 32, dtype=torch.long), tmp_path)
    state = export(checkpoint, tmp_path / "new" / "net.safetensors")
    net = smp.create_model("Unet", "tu-test_efficientnet", encoder_weights=None, classes=2).eval()
    net.load_state_dict(state, strict=True)
    torch.testing.assert_close(net(IMAGES), task.eval()(IMAGES))
    assert f"net.safetensors: {len(state)} tensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"not a checkpoint", "cannot read tensors"),
        ({"state_dict": {"layer.weight": torch.zeros(1)}}, "holds no network of a task"),
        ([1, 2], "holds no network of a task"),
        ({"state_dict": {}, "hyper_parameters": Trainer}, "cannot read tensors"),
    ],
)
def test_what_is_no_checkpoint_of_a_task_is_refused(tmp_path, capsys, content, message):
    file = tmp_path / "some.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    assert main(["export", "--ckpt", str(file), "--out", str(tmp_path / "net.safetensors")]) == 1
    assert re.fullmatch(
        f"error: export: (.*some.ckpt.*{message}|.*{message}.*some.ckpt).*\n",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "net.safetensors").exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "net.safetensors").write_text("mine")
    out = str(tmp_path / "net.safetensors")
    assert main(["export", "--ckpt", "any.ckpt", "--out", out]) == 1
    assert f"export: {out} exists already" in capsys.readouterr().err
    assert (tmp_path / "net.safetensors").read_text() == "mine"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the command line: its last checkpoint, in its folder."""
    folder = tmp_path_factory.mktemp("run")
    options = ["--config=quickstart.yaml", "--model.encoder=tu-test_efficientnet"]
    options += ["--model.weights=none", "--model.freeze=null", "--data.tile_size=32"]
    options += ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--profiler=false"]
    options += [f"--trainer.limit_{each}_batches=1" for each in ("train", "val")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["razorlight"])
        assert main(["fit", *options]) == 0
    (checkpoint,) = folder.rglob("last.ckpt")
    return checkpoint


def test_a_card_says_what_the_network_is(run, tmp_path):
    export(run, tmp_path / "tiles.safetensors")
    page = (tmp_path / "tiles.md").read_text()
    assert page.startswith("# tiles\n")
    assert "| classes | 2: water, land |" in page
    assert "| network | architecture Unet, encoder tu-test_efficientnet |" in page
    assert "| image size in training | 32 px |" in page
    assert "| scores | val/mIoU 0." in page
    with safe_open(tmp_path / "tiles.safetensors", "pt") as file:
        card = json.loads(file.metadata()["razorlight"])
    assert card["class_names"] == ["water", "land"]
    assert card["task"] == "SegmentationTask"
    assert card["recipe"] == "balanced"
    assert len(card["mean"]) == len(card["std"]) == 3
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "tiles.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_onnx(run, tmp_path, capsys):
    out = tmp_path / "tiles.safetensors"
    assert main(["export", "--ckpt", str(run), "--out", str(out), "--onnx"]) == 0
    assert "differ from torch's by" in capsys.readouterr().out
    net = smp.create_model("Unet", "tu-test_efficientnet", encoder_weights=None, classes=2).eval()
    net.load_state_dict(load_file(out), strict=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "tiles.onnx"))
    for images in (IMAGES, IMAGES[:1]):
        (outputs,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(outputs), net(images), rtol=1e-3, atol=1e-4)


def test_onnx_that_cannot_be_had(run, tmp_path, capsys, monkeypatch):
    alone = tmp_path / "alone" / "last.ckpt"
    alone.parent.mkdir()
    alone.write_bytes(run.read_bytes())
    out = tmp_path / "net.safetensors"
    assert main(["export", "--ckpt", str(alone), "--out", str(out), "--onnx"]) == 1
    assert "no config.yaml of the run lies beside" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "other.safetensors"
    assert main(["export", "--ckpt", str(run), "--out", str(out), "--onnx"]) == 1
    assert 'pip install "razorlight[onnx]"' in capsys.readouterr().err


def test_a_graph_that_computes_otherwise_is_not_kept(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("razorlight.cli.export._TOLERANCE", -1.0)
    out = tmp_path / "net.safetensors"
    assert main(["export", "--ckpt", str(run), "--out", str(out), "--onnx"]) == 1
    assert "outputs of the ONNX graph differ" in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


def test_what_no_prediction_can_be_made_from(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    alone = tmp_path / "alone" / "last.ckpt"
    alone.parent.mkdir()
    alone.write_bytes(run.read_bytes())
    export(run, "net.safetensors")
    export(alone, "alone.safetensors")
    Path("torn.safetensors").write_text("torn")
    folder = "--data.predict_folder=photos"
    for words, message in {
        ("predict", "--model=none.safetensors", folder): "there is no file none.safetensors",
        ("predict", "--model=torn.safetensors", folder): "torn.safetensors cannot be read",
        ("predict", "--model=alone.safetensors", folder): "does not say what network it is",
        ("predict", "--model", "net.safetensors"): "give --data.predict_folder",
        ("predict", "--model", str(run), folder): "is neither a class nor an exported network",
        ("fit", "--model", "net.safetensors", "--data=BlueMarble"): "give it as --model.weights",
    }.items():
        assert main([*words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: model: ")
        assert message in line


def test_the_score_is_that_of_the_epoch(run, tmp_path):
    """Later epochs may be worse than the best, of which the same checkpoint also knows."""
    folder = tmp_path / "run"
    shutil.copytree(run.parent.parent, folder)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "epoch": 1}, checkpoint)
    (folder / "metrics.csv").write_text("epoch,step,val/mIoU\n0,1,0.9\n1,2,0.25\n")
    export(checkpoint, tmp_path / "net.safetensors")
    assert "| scores | val/mIoU 0.2500 |" in (tmp_path / "net.md").read_text()
