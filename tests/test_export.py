"""The network out of a checkpoint, for those without razorlight."""

import re

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
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
