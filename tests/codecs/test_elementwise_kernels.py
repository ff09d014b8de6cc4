"""Kernels compute elementwise functions while they decode, as torch code does from the value."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razorlight import Uniform, razor_
from razorlight.codecs import Step
from razorlight.codecs import kernels as codec_kernels

pytest.importorskip("triton")
from razorlight.codecs.kernels import uniform

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity

ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
}
CODEC = Uniform(4, axis=-2, token_scale=True)


def compare(dtype, function, *steps, shape=(4, 24, 40)):
    """Compare the result of steps with that of ``function`` of the decoded value."""
    stored = CODEC.encode(torch.randn(shape) * 2)
    value = CODEC.decode(*stored, shape=torch.Size(shape), dtype=torch.float32)
    ours = uniform.decode(CODEC, *stored, shape=value.shape, dtype=dtype, steps=steps)
    # the interpreter cuts digits off where a GPU rounds
    tolerance = 1e-5 if dtype == torch.float32 else 2**-9
    torch.testing.assert_close(ours, function(value).to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_activations(name, dtype):
    torch.manual_seed(0)
    compare(dtype, ACTIVATIONS[name], Step(name, (), None))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("like", ["whole", "expanded", "strided"])
def test_gradients_of_activations(name, like):
    torch.manual_seed(0)
    grad = torch.randn(4, 24, 40, 2)
    grad = {"expanded": grad[:1, :, :, 0].expand(4, 24, 40), "strided": grad[..., 1]}.get(
        like, grad[..., 0].contiguous()
    )

    def gradient(value):
        value.requires_grad_()
        return torch.autograd.grad(ACTIVATIONS[name](value), value, grad)[0]

    compare(torch.float32, gradient, Step(f"{name}_gradient", (grad,), None))


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_weight", [False, True])
def test_affine_functions_and_those_that_follow(has_weight, has_bias):
    torch.manual_seed(0)
    mean, weight, bias = torch.randn(3, 40)
    more = tuple(
        one.expand(4, 24, 40) if given else None
        for one, given in ((mean, True), (weight, has_weight), (bias, has_bias))
    )
    w, b = weight if has_weight else 1, bias if has_bias else 0
    compare(torch.float32, lambda x: x * w + b, Step("affine", more, None))

    def aligned(x):
        return F.silu((x - mean) * abs(weight) + b if has_weight else x + b)

    steps = Step("affine_of_signs", more, torch.float32), Step("silu", (), None)
    compare(torch.float16, aligned, *steps, Step("cast", (), torch.float16))


def mlp(activation):
    return nn.Sequential(nn.LayerNorm(640), nn.Linear(640, 64), activation, nn.Linear(64, 8))


def convolutions(activation):
    parts = [nn.Conv2d(72, 16, 3, padding=1), nn.BatchNorm2d(16), activation, nn.Conv2d(16, 8, 1)]
    model = nn.Sequential(*parts)
    nn.init.normal_(model[1].weight)
    nn.init.normal_(model[1].bias)
    return model


NETWORKS = {
    "gelu": (mlp(nn.GELU()), [("affine",), ("gelu",), ("gelu_gradient",)]),
    "silu": (mlp(nn.SiLU()), [("affine",), ("silu",), ("silu_gradient",)]),
    "relu": (convolutions(nn.ReLU()), [("affine_of_signs", "relu")]),
    "hardswish": (convolutions(nn.Hardswish()), [("affine_of_signs", "hardswish")]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
def test_networks(name, form, monkeypatch):
    torch.manual_seed(0)
    dense, expected = NETWORKS[name]
    if form == torch.channels_last and not isinstance(dense[0], nn.Conv2d):
        pytest.skip("tokens have one memory format")
    x = torch.randn(8, 16, 640) if isinstance(dense[0], nn.LayerNorm) else torch.randn(8, 72, 8, 8)
    gradients = []
    for launches in (False, True):
        names = note_steps(monkeypatch, launches)
        model, leaf = copy.deepcopy(dense), x.contiguous(memory_format=form).requires_grad_()
        razor_(model, "balanced", include=["*"])
        model(leaf).square().mean().backward()
        gradients.append([leaf.grad, *(p.grad for p in model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert not [steps for steps in expected if steps not in names]


def note_steps(monkeypatch, launches):
    """Let kernels run, or not; return a list of the names of the steps of each decoding."""
    monkeypatch.setattr(codec_kernels, "can_launch", lambda like: launches)
    names, decode = [], uniform.decode

    def noted(*args, steps=(), **options):
        names.append(tuple(step.name for step in steps))
        return decode(*args, steps=steps, **options)

    monkeypatch.setattr(uniform, "decode", noted)
    return names
