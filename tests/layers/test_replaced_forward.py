"""A forward that was set on the instance or the class, and what torch.fx makes of layers."""

import copy
import functools
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from razorlight import is_converted, razor_, restore_
from razorlight.memory import measure_step

RECIPES = ["exact", "balanced", "compact", "checkpoint"]


def closure(layer):
    old = layer.forward
    layer.forward = lambda *args, **kwargs: old(*args, **kwargs)


def hooked(layer):  # as accelerate's add_hook_to_module
    layer._old_forward = layer.forward

    def new_forward(module, *args, **kwargs):
        return module._old_forward(*args, **kwargs)

    partial = functools.partial(new_forward, layer)
    layer.forward = functools.update_wrapper(partial, layer._old_forward)


def compiled(layer):
    layer.forward = torch.compile(layer.forward, backend="eager")


def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)


def step(model):
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    return model(images).square().mean()


def gradients(model):
    model.zero_grad()
    loss = step(model)
    loss.backward()
    return loss, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("replace", [closure, hooked])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_forward_set_on_the_instance(replace, recipe):
    dense, plain = vit(), vit()
    razor_(plain, recipe)
    usual = measure_step(plain, lambda: step(plain)).stored
    for layer in dense.modules():
        replace(layer)
    forwards = [vars(layer)["forward"] for layer in dense.modules()]
    loss, expected = gradients(dense)
    razor_(dense, recipe)
    ours, d_ours = gradients(dense)
    assert torch.equal(ours, loss)
    assert torch.cosine_similarity(d_ours, expected, dim=0) > 0.98
    assert measure_step(dense, lambda: step(dense)).stored == usual
    restore_(dense)
    for layer, forward in zip(dense.modules(), forwards, strict=True):
        assert vars(layer)["forward"] is forward


def test_a_forward_set_on_the_instance_is_copied_and_pickled():
    dense = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))
    for layer in dense:
        layer.forward = functools.partial(type(layer).forward, layer)
    razor_(dense, include=["*"])
    for copied in (copy.deepcopy(dense), pickle.loads(ForkingPickler.dumps(dense))):
        assert is_converted(copied)
        with torch.no_grad():
            dense[0].weight.add_(1)
        copied(torch.randn(2, 4)).sum().backward()
        assert dense[0].weight.grad is None
    assert b"razor" not in pickle.dumps(dense)
    assert is_converted(dense)


def test_a_forward_taken_before_and_called_after():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    razor_(model, include=["*"])
    forward, x = model[0].forward, torch.randn(2, 4)
    closure(model[0])
    expected = model(x)
    restore_(model)
    assert torch.equal(forward(x), model[0](x))
    assert torch.equal(model(x), expected)


def test_a_compiled_forward():
    torch._dynamo.reset()
    dense = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8))
    razor = copy.deepcopy(dense)
    for layer in razor:
        compiled(layer)
    razor_(razor, "exact")
    x = torch.randn(4, 8)
    for model in (dense, razor):
        model(x).square().sum().backward()
    for p, q in zip(razor.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_a_forward_set_on_the_class(monkeypatch):
    dense = vit()
    loss, expected = gradients(dense)
    calls = []
    old = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: calls.append(1) or old(self, x))
    razor_(dense, "exact")
    ours, d_ours = gradients(dense)
    assert calls
    assert torch.equal(ours, loss)
    torch.testing.assert_close(d_ours, expected, rtol=1e-3, atol=1e-5)
    assert type(dense.blocks[0].mlp.fc1(torch.randn(2, 192)).grad_fn).__name__ == "_RazorBackward"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("first", ["extractor", "razor"])
def test_feature_extractors(first, recipe):
    torch.manual_seed(0)
    base = torchvision.models.resnet18(num_classes=2)
    nodes = {"layer2": "a", "layer4": "b"}
    images = torch.randn(4, 3, 64, 64)

    def run(model):
        out = model(images)
        loss = out["a"].square().mean() + out["b"].square().mean()
        loss.backward()
        return loss, torch.cat([p.grad.flatten() for p in model.parameters()])

    loss, expected = run(create_feature_extractor(copy.deepcopy(base), nodes))
    if first == "razor":
        razor_(base, recipe)
        razor = create_feature_extractor(base, nodes)
    else:
        razor = create_feature_extractor(base, nodes)
        razor_(razor, recipe)
    ours, d_ours = run(razor)
    assert torch.equal(ours, loss)
    floor = 0.85 if recipe == "compact" else 0.95  # few values to a norm
    assert torch.cosine_similarity(d_ours, expected, dim=0) > floor


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny"])
def test_a_trace_is_that_of_the_dense_network(name, recipe):
    dense = torchvision.models.get_model(name)
    expected = torch.fx.symbolic_trace(dense)
    razor_(dense, recipe)
    traced = torch.fx.symbolic_trace(dense)
    assert str(traced.graph) == str(expected.graph)
    part = dense.layer1[0] if name == "resnet18" else dense.features[1][0]  # known, or a block
    assert next(node.op for node in torch.fx.symbolic_trace(part).graph.nodes) == "placeholder"


def test_a_forward_set_on_a_layer_that_is_written_out_is_left_dense():
    layers = nn.ModuleList([timm.layers.RmsNorm2d(4), timm.layers.RmsNorm2d(4)])
    closure(layers[0])
    report = razor_(layers, include=["*"])
    (line,) = report.only("skipped")
    assert (line.name, line.detail[:33]) == ("0", "its forward was set on the instan")
    assert [line.name for line in report.only("converted")] == ["1"]
    razor_(layers, include=["*"])  # planned again while it is converted
    assert [line.name for line in report.only("converted")] == ["1"]
