"""Layers at the edges: in place, empty, of one value or token, vectors, and what is no number."""

import copy

import pytest
import timm
import torch
from beside_dense import assert_same, eight_bits, pair, run
from layer_cases import CASES, IMAGE, TOKENS, timm_unit
from torch import nn
from torch.nn import functional as F

from razorlight import Role, Slope, razor_, register
from razorlight.layers import REGISTRY
from razorlight.memory.meter import StorageMeter, model_tensors
from razorlight.planning.recipes import balanced


def test_in_place_relu_on_a_view():
    dense, razor = pair(lambda: nn.ReLU(inplace=True))
    gradients = []
    for layer in (dense, razor):
        x = torch.linspace(-1, 1, 12).view(3, 4).requires_grad_()
        y = x * 2
        layer(y[:, :2])
        (y * torch.arange(12).view(3, 4)).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True)),
        lambda: nn.Sequential(timm_unit(), nn.ReLU(inplace=True)),
    ],
)
def test_what_follows_may_be_in_place(factory):
    dense, razor = pair(factory)
    assert_same(run(razor, TOKENS), run(dense, TOKENS), 1e-5)


@pytest.mark.parametrize("case", ["ReLU", "ReLU6", "LeakyReLU", "Dropout", "GELU", "SiLU"])
@pytest.mark.parametrize("shape", [(), (5,), (0, 5)], ids=str)
def test_numbers_vectors_and_nothing(case, shape):
    dense, razor = pair(CASES[case][0], eight_bits(reruns=False))
    (out, d_x, _), expected = run(razor, shape), run(dense, shape)
    assert torch.equal(out, expected[0])
    torch.testing.assert_close(d_x, expected[1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("case", ["Linear", "Conv2d", "BatchNorm2d", "GroupNorm", "LayerNorm"])
def test_an_empty_batch(case):
    factory, shape = CASES[case]
    dense, razor = pair(factory)
    results = [run(layer, (0, *shape[1:])) for layer in (razor, dense)]
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[1][2].items():
        assert torch.equal(results[0][2][name], gradient)


@pytest.mark.parametrize("frozen", [False, True])
def test_tokens_that_lie_across_give_the_same_bits_under_autocast(frozen):
    dense, razor = pair(lambda: nn.Linear(8, 4).requires_grad_(not frozen))
    for seed in range(40):
        torch.manual_seed(seed)
        x = torch.randn(2, 8, 256, requires_grad=True).mT
        with torch.autocast("cpu", torch.float16):
            assert torch.equal(dense(x), razor(x))


def test_a_vector_gives_the_same_bits():
    dense, razor = pair(lambda: nn.Linear(6, 1), dtype=torch.float16)
    for seed in range(20):
        torch.manual_seed(seed)
        x = torch.randn(1).half().expand(6)
        assert torch.equal(dense(x), razor(x))


def _transformer():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_a_transformer_in_eval_mode_gives_the_bits_of_torchs_fast_path(frozen, padded):
    dense, razor = pair(_transformer)
    x, mask = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    outs = [
        layer.eval().requires_grad_(not frozen)(x, src_key_padding_mask=mask if padded else None)
        for layer in (dense, razor)
    ]
    assert outs[0].requires_grad is not frozen
    assert torch.equal(*outs)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3)])
def test_the_loss_of_each_place_may_be_changed_in_place(shape):
    x, targets = torch.randn(shape), torch.randint(3, (shape[0], *shape[2:]))
    gradients = []
    for loss in pair(lambda: nn.CrossEntropyLoss(reduction="none")):
        logits = x.clone().requires_grad_()
        losses = loss(logits * 1, targets)
        losses *= 2
        losses.sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


def test_weight_gradient_of_a_single_token():
    dense, razor = pair(lambda: nn.RMSNorm(16))
    assert_same(run(razor, (16,)), run(dense, (16,)), 1e-5)


@pytest.mark.parametrize("factory", [lambda: nn.BatchNorm2d(3), lambda: nn.GroupNorm(3, 3)])
def test_a_single_value_has_no_statistics(factory):
    for layer in pair(factory):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(torch.randn(1, 3, 1, 1, requires_grad=True))


def test_group_norm_of_half_precision_by_parameters_of_single():
    dense, razor = pair(lambda: nn.GroupNorm(4, 8))
    assert_same(run(razor, IMAGE, torch.bfloat16), run(dense, IMAGE, torch.bfloat16), 2e-2)


def test_not_a_number_passes_as_in_torch():
    for case in ("ReLU", "LeakyReLU", "MaxPool2d"):  # at ReLU6 torch itself differs by size
        dense, razor = pair(CASES[case][0])
        gradients = []
        for layer in (dense, razor):
            x = torch.linspace(-2, 8, 16).view(1, 1, 4, 4)
            x[..., 0] = torch.nan
            x.requires_grad_()
            layer(x).sum().backward()
            gradients.append(x.grad)
        torch.testing.assert_close(*gradients, equal_nan=True)


def test_nothing_but_a_weights_gradient_is_derived_from_what_is_pruned():
    dense, razor = pair(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 1),  # narrow enough to run again
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
        ),
        balanced(sparsity=0.9),
    )
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(4, *shape, generator=generator) for shape in [(3, 16, 16), (8, 14, 14)])
    for model in (dense, razor):
        model(x).backward(g)
    for name in ("2.weight", "4.weight"):
        ours, theirs = (model.get_parameter(name).grad.flatten() for model in (razor, dense))
        assert F.cosine_similarity(ours, theirs, dim=0) > 0.98


def _stored(model, x):
    with StorageMeter() as meter:
        meter.track(model_tensors(model), x)
        before = meter.live
        out = model(x)
        return meter.live - before - out.nbytes, out


@pytest.mark.parametrize("recipe", ["exact", "balanced", "compact", "checkpoint", "paper"])
def test_in_eval_mode_layers_store_as_in_train_mode(recipe):
    torch.manual_seed(0)
    dense = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    razor = copy.deepcopy(dense)
    razor_(razor, recipe)
    x = torch.randn(2, 3, 32, 32)
    stored = [_stored(razor.train(mode), x)[0] for mode in (True, False)]
    assert stored[0] == stored[1]
    assert torch.equal(razor(x), dense.eval()(x))
    for model in (razor, dense):
        model(x).square().sum().backward()
    ours, theirs = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (razor, dense))
    assert torch.cosine_similarity(ours, theirs, dim=0) > (0.5 if recipe == "paper" else 0.98)


def test_a_batch_norm_in_eval_mode_stores_nothing_for_its_statistics():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)).eval()
    razor = copy.deepcopy(dense)
    for model in (dense, razor):
        model[0].requires_grad_(False)
        model[1].requires_grad_(False)
    razor_(razor, include=["*"])
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    stored, out = _stored(razor, x)
    assert stored < 1000
    (ours,) = torch.autograd.grad(out.square().sum(), x)
    (theirs,) = torch.autograd.grad(dense(x).square().sum(), x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("recipe", ["balanced", "compact"])
@pytest.mark.parametrize("values", [2, 3, 4])
def test_a_norm_of_few_values_does_not_magnify_a_codecs_error(recipe, values):
    # of two values the gradient through a batch norm is nothing but what eps leaves of it
    torch.manual_seed(0)

    def block():
        return [nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU()]

    dense = nn.Sequential(*block(), *block(), *block(), *block(), nn.Conv2d(16, 4, 1))
    razor = copy.deepcopy(dense)
    razor_(razor, recipe)
    x = torch.randn(values, 16, 1, 1)
    for model in (dense, razor):
        model(x).square().sum().backward()
    whole = [torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (dense, razor)]
    assert (whole[1] - whole[0]).norm() < 0.3 * whole[0].norm()


@pytest.mark.parametrize("recipe", ["balanced", "compact"])
@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh])
def test_what_is_saturated_passes_no_gradient(recipe, activation):
    # whatever a codec left of it would be multiplied by giants before
    torch.manual_seed(0)
    x = torch.randn(4, 40, 32)
    x[:, 20:] = 1e4 * torch.randn(4, 20, 32).sign()
    dense = activation()
    razor = copy.deepcopy(dense)
    razor_(razor, recipe, include=["*"])
    given = torch.randn_like(x)
    (found,), (true,) = (
        torch.autograd.grad(model(leaf := x.clone().requires_grad_()), leaf, given)
        for model in (razor, dense)
    )
    assert torch.equal(found[:, 20:], true[:, 20:])
    assert torch.cosine_similarity(found.flatten(), true.flatten(), dim=0) > 0.99


class SlopedTanh(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


class SlopedMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 16))

    def forward(self, x):
        return F.gelu(F.linear(x, self.weight)).softmax(-1)


class SlopedGLU(nn.Module):
    def forward(self, x):
        return F.glu(x)


@pytest.mark.parametrize(
    ("layer", "functions"),
    [
        (SlopedTanh, [torch.tanh]),
        (SlopedMLP, [F.linear, F.gelu, F.softmax]),
        (SlopedGLU, [F.glu]),
    ],
)
def test_a_codec_of_slopes_stores_values_where_values_are_read(layer, functions):
    register(layer, functions=functions, role=Role.SMOOTH_ACTIVATION)
    try:
        torch.manual_seed(0)
        dense = layer()
        razor = copy.deepcopy(dense)
        razor_(razor, include=["*"], overrides={"*": Slope(4)})
        x, gradients = torch.randn(8, 40, 16), []
        for model in (dense, razor):
            leaf = x.clone().requires_grad_()
            model(leaf * 1).square().sum().backward()
            found = [leaf.grad, *(p.grad for p in model.parameters())]
            gradients.append(torch.cat([g.flatten() for g in found]))
        assert torch.cosine_similarity(*gradients, dim=0) > 0.98
    finally:
        del REGISTRY[layer]
