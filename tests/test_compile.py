"""torch.compile traces razor layers whole, and computes what eager does."""

import copy
import shutil

import pytest
import timm
import torch
from small_networks import tiny_vit
from torch import nn
from torch.library import opcheck

from razorlight import Dense, Slope, Uniform, razor_
from razorlight.codecs import CODECS, operators
from razorlight.codecs.operators import _decode, _encode, spec_of
from razorlight.functional.attention import _gradients_operator, _like_operands


@pytest.fixture(autouse=True)
def forgotten():
    yield
    torch._dynamo.reset()


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.GroupNorm(2, 8),
        nn.SiLU(inplace=True),
        nn.Flatten(),
        nn.Linear(8 * 13 * 13, 4),
    )


def transformer():
    return tiny_vit(32, 8, num_classes=1000)


def transformer_written_out():
    model = transformer()
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def gated():
    return nn.Sequential(
        nn.Conv2d(3, 16, 8, stride=8),
        timm.layers.RmsNorm2d(16),
        nn.Flatten(2),
        nn.RMSNorm(16),
        timm.layers.SwiGLU(16, 64, 16),
        nn.Flatten(),
        nn.Linear(256, 4),
    )


def inverted_residual():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        timm.models._efficientnet_blocks.InvertedResidual(8, 8, exp_ratio=6, act_layer=nn.ReLU6),
        nn.Flatten(),
        nn.Linear(8 * 30 * 30, 4),
    )


def transformer_of_torch():
    return nn.Sequential(
        nn.Conv2d(3, 16, 8, stride=8),
        nn.Flatten(2),
        nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True),
        nn.Flatten(),
        nn.Linear(256, 4),
    )


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("curve", [nn.GELU, nn.SiLU])
def test_slopes_compiled(curve, bits):
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Linear(8, 64), curve(), nn.Linear(64, 4))
    razor_(eager, "paper", include=["1"], overrides={"1": Slope(bits)})
    compiled = copy.deepcopy(eager)
    compiled.compile(fullgraph=True, backend="aot_eager")
    x = torch.randn(64, 8)
    for model in (eager, compiled):
        model(x).square().sum().backward()
    torch.testing.assert_close(eager[0].weight.grad, compiled[0].weight.grad)


# compact runs again what exact does, with records that balanced has too
@pytest.mark.parametrize(
    "recipe", ["paper", "exact", "balanced", pytest.param("compact", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    "build",
    [
        convolutional,
        inverted_residual,
        transformer,
        transformer_written_out,
        transformer_of_torch,
        gated,
    ],
)
def test_compiled_whole(build, recipe):
    compare_compiled(build, recipe)


@pytest.mark.parametrize(
    ("build", "recipe"),
    [(convolutional, "balanced"), (transformer, "compact")],
)
def test_compiled_as_on_a_gpu(build, recipe, monkeypatch):
    """What is joined with codecs on a GPU is an operator, which computes what eager does."""
    monkeypatch.setattr(operators, "_WITH_KERNELS", {"cpu"})
    *models, x = compare_compiled(build, recipe)
    eager, compiled = (stored(model, x) for model in models)
    assert compiled <= 1.1 * eager


def compare_compiled(build, recipe):
    torch.manual_seed(0)
    eager = build()
    razor_(eager, recipe)
    compiled = copy.deepcopy(eager)
    compiled.compile(fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 32, 32)
    outputs = [model(x) for model in (eager, compiled)]
    torch.testing.assert_close(*outputs)
    for out in outputs:
        out.square().sum().backward()
    for (name, a), b in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-3, msg=name)
    return eager, compiled, x


def stored(model, x):
    """Bytes that autograd keeps beside parameters, inputs and outputs, each storage once.

    Nor do the copies of images and kernels count that Inductor makes in a layout that it prefers.
    """
    copied = {x.shape, *(p.shape for p in model.parameters() if p.ndim == 4)}
    known = {t.untyped_storage().data_ptr() for t in (x, *model.parameters(), *model.buffers())}
    storages = {}

    def note(tensor):
        if tensor.shape in copied:
            return tensor
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(x)
    known.add(out.untyped_storage().data_ptr())
    return sum(size for place, size in storages.items() if place not in known)


def resnet():
    return timm.create_model("resnet10t")


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
@pytest.mark.parametrize(
    ("build", "recipe"),
    [
        pytest.param(transformer, "balanced", marks=pytest.mark.long),
        (transformer, "compact"),
        pytest.param(resnet, "balanced", marks=pytest.mark.long),
        (inverted_residual, "exact"),
    ],
)
def test_compiled_stores_what_eager_stores(build, recipe):
    torch.manual_seed(0)
    eager = build()
    razor_(eager, recipe)
    compiled = copy.deepcopy(eager)
    compiled.compile(fullgraph=True)  # by Inductor
    x = torch.randn(8, 3, 32, 32)
    compiled(x).sum().backward()
    assert stored(compiled, x) <= 1.1 * stored(eager, x)


@pytest.mark.parametrize("name", CODECS)
def test_codecs_as_operators(name):
    codec = Dense("fp16") if name == "dense" else CODECS[name]()
    x = torch.randn(4, 6, 40)
    if name == "mask":
        x = x > 0
    spec = spec_of(codec)
    opcheck(_encode, (x, spec))
    dtype = torch.bool if name == "mask" else x.dtype
    opcheck(_decode, (_encode(x, spec), spec, x.shape, dtype))


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_attention_as_an_operator(masked):
    query, key, value, grad = torch.randn(4, 2, 3, 9, 8)
    mask = torch.randn(9, 9) if masked else None
    options = (False, None, False, [True, True, True, masked])
    arguments = (grad, query, key, value, mask, *options)
    # the other checks cannot look into what differentiates inside
    opcheck(_gradients_operator, arguments, test_utils="test_autograd_registration")
    for real, fake in zip(_gradients_operator(*arguments), _like_operands(*arguments), strict=True):
        assert (real.shape, real.stride(), real.dtype) == (fake.shape, fake.stride(), fake.dtype)


def test_a_change_in_place_between_two_layers_is_refused():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(16), nn.Linear(16, 16)

        def forward(self, x):
            y = self.norm(x)
            y.mul_(2)
            return self.linear(y)

    model = Block()
    razor_(model, include=["*"], overrides={"norm": Uniform(8)})
    model.compile(fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="changed in place between two layers"):
        model(torch.randn(2, 3, 16))
