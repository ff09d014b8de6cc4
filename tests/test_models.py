"""Whole networks: the forward is the dense one, bit for bit, and so is an unpruned gradient."""

import copy
import math
from dataclasses import replace

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from razorlight import razor_, restore_
from razorlight.layers import RazorModule
from razorlight.memory import measure_step
from razorlight.planning import exact, paper

TIMM = {
    "resnet18": 64,
    "resnet50": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "efficientnet_b0": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
}
EXACT = {  # each recipe, and what it would be without loss
    "balanced": exact(),
    "compact": replace(exact(), max_rerun_cost=math.inf),
    "paper": paper(0.0, "fp32"),
}
SMP = ("Unet", "FPN", "DeepLabV3Plus", "UPerNet", "Segformer")


def build(name):
    torch.manual_seed(0)
    if name in TIMM:
        model = timm.create_model(name, num_classes=5, drop_rate=0.1, drop_path_rate=0.1)
        return model, torch.randn(2, 3, TIMM[name], TIMM[name])
    if name == "torchvision vit":
        model = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, dropout=0.1)
        return model, torch.randn(2, 3, 32, 32)
    encoder = "mit_b0" if name == "Segformer" else "resnet18"
    model = getattr(smp, name)(encoder, encoder_weights=None, classes=5)
    return model, torch.randn(2, 3, 64, 64)


def seeded(model, x):
    torch.manual_seed(1)
    return model(x)


def assert_same_gradients(model, dense):
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    expected = {key: p.grad for key, p in dense.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    # a bias before a norm has a gradient of zero, which comes out as noise of the others' size
    noise = 1e-6 * max(gradient.abs().max().item() for gradient in expected.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=noise, msg=key)


@pytest.mark.parametrize("recipe", EXACT)
@pytest.mark.parametrize("name", [*TIMM, *SMP, "torchvision vit"])
def test_like_dense(name, recipe):
    dense, x = build(name)
    razor, lossless = copy.deepcopy(dense), copy.deepcopy(dense)
    razor_(razor, recipe)
    razor_(lossless, EXACT[recipe])
    assert dense.state_dict().keys() == razor.state_dict().keys()

    expected, out = seeded(dense, x), seeded(lossless, x)
    assert torch.equal(out, expected)
    assert torch.equal(seeded(razor, x), expected)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    assert_same_gradients(lossless, dense)
    for model in (dense, razor):
        model.eval()
    assert torch.equal(seeded(razor, x), seeded(dense, x))
    for key, value in razor.state_dict().items():
        assert torch.equal(value, dense.state_dict()[key]), key

    restore_(razor)
    assert not any(isinstance(layer, RazorModule) for layer in razor.modules())
    assert [type(layer) for layer in razor.modules()] == [type(layer) for layer in dense.modules()]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("recipe", [exact(), paper(0.0, "fp32")], ids=["exact", "paper"])
def test_attention_written_out(name, recipe):
    dense, x = build(name)
    for layer in dense.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = False
    razor = copy.deepcopy(dense)
    razor_(razor, recipe)
    expected, out = seeded(dense, x), seeded(razor, x)
    assert torch.equal(out, expected)
    out.sum().backward()
    expected.sum().backward()
    assert_same_gradients(razor, dense)


def freeze_batch_norm(model):
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "batch", "ratio"), [("mobilenetv2_100", 2, 6), ("vit_tiny_patch16_224", 2, 3.5)]
)
def test_stored_bytes(name, batch, ratio):
    model, _ = build(name)
    freeze_batch_norm(model)
    images, labels = torch.randn(batch, 3, 224, 224), torch.zeros(batch, dtype=torch.long)

    def loss():
        return F.cross_entropy(model(images), labels)

    def stored():
        return measure_step(model, loss, (images, labels)).stored

    dense = stored()
    razor_(model, "paper", sparsity=0.9)
    assert dense / stored() >= ratio
    restore_(model)
    assert stored() == dense
