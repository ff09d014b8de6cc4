"""Every layer against its dense self: forward, gradients, what is stored."""

import copy
from functools import partial

import pytest
import timm.layers
import torch
from beside_dense import EXACT, assert_same, eight_bits, pair, run
from layer_cases import (
    CASES,
    CURVES,
    GATES,
    MEANS,
    NORMS,
    OTHER_CURVES,
    PRODUCTS,
    TOKENS,
    timm_unit,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from razorlight import Recipe, Slope, Uniform, razor_
from razorlight.layers import BY_PATH, RazorLayer, known_classes
from razorlight.memory.meter import StorageMeter, model_tensors
from razorlight.planning import paper


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("recipe", EXACT, ids=["exact", "exact reruns", "paper"])
def test_equals_dense_when_nothing_is_lost(case, dtype, recipe):
    if case == "AvgPool3d" and dtype is torch.bfloat16:  # of which torch has no kernel
        return
    factory, shape = CASES[case]
    dense, razor = pair(factory, recipe, dtype=dtype)
    tolerance = {
        torch.float32: 1e-5,
        torch.bfloat16: 2e-2,
        torch.float64: 1e-5,  # the recipes store at most 32 bits
    }[dtype]
    assert_same(run(razor, shape, dtype), run(dense, shape, dtype), tolerance)
    for name, buffer in dense.named_buffers():
        assert torch.equal(buffer, razor.get_buffer(name))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("recipe", EXACT, ids=["exact", "exact reruns", "paper"])
def test_equals_dense_under_autocast(case, recipe):
    factory, shape = CASES[case]
    dense, razor = pair(factory, recipe)
    expected = run(dense, shape, device_dtype=torch.bfloat16)
    assert_same(run(razor, shape, device_dtype=torch.bfloat16), expected, 4e-2)


@pytest.mark.parametrize("case", CASES)
def test_equals_dense_inside_a_checkpoint(case):
    factory, shape = CASES[case]
    dense, razor = pair(factory, EXACT[1])
    again = Checkpointed(razor)
    out, d_x, gradients = run(again, shape)
    gradients = {name.removeprefix("layer."): value for name, value in gradients.items()}
    assert_same((out, d_x, gradients), run(dense, shape), 1e-5)


class Checkpointed(nn.Module):
    """A layer that runs again in backward."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return checkpoint(lambda x: self.layer(x * 1), x, use_reentrant=False)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_pruned(case, sparsity):
    factory, shape = CASES[case]
    dense, razor = pair(factory, paper(sparsity))
    (out, d_x, gradients), expected = run(razor, shape), run(dense, shape)
    assert torch.equal(out, expected[0])
    if case in PRODUCTS or case in GATES:
        torch.testing.assert_close(d_x, expected[1], rtol=1e-5, atol=1e-6)
    if case in CURVES or case in OTHER_CURVES:  # stored at 16 bits
        torch.testing.assert_close(d_x, expected[1], rtol=1e-2, atol=1e-3)
    for name, gradient in gradients.items():
        assert gradient.isfinite().all()
        if case in PRODUCTS and name == "bias":
            torch.testing.assert_close(gradient, expected[2][name])


@pytest.mark.parametrize("reruns", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_eight_bits(case, reruns):
    factory, shape = CASES[case]
    dense, razor = pair(factory, eight_bits(reruns))
    (out, d_x, gradients), expected = run(razor, shape), run(dense, shape)
    assert torch.equal(out, expected[0])
    pairs = [(d_x, expected[1])] + [(gradients[name], expected[2][name]) for name in gradients]
    largest = max(gradient.abs().max().item() for _, gradient in pairs)
    for gradient, true in pairs:
        torch.testing.assert_close(gradient, true, rtol=0.05, atol=0.02 * largest)


@pytest.mark.parametrize("case", CURVES)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_slopes(case, bits):
    factory, shape = CURVES[case]
    dense, razor = pair(factory)
    razor_(razor, include=["*"], overrides={"*": Slope(bits)})
    (out, d_x, _), expected = run(razor, shape), run(dense, shape)
    assert torch.equal(out, expected[0])
    similar = torch.nn.functional.cosine_similarity(d_x.flatten(), expected[1].flatten(), dim=0)
    assert similar > {2: 0.95, 3: 0.985, 4: 0.995}[bits]
    assert live_after_forward(razor, (4, 16, 32, 32)) == 4 * 16 * 32 * 32 * bits // 8


def gated(activation):
    """A batch norm and an activation, and the gradient that comes out of the activation."""
    norm = nn.BatchNorm2d(8)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 1.1, 8))
        norm.bias.copy_(torch.linspace(1, -1, 8))
        norm.bias[3] = 50.0  # nothing is ever cut off
    return nn.Sequential(norm, activation, nn.Conv2d(8, 4, 3))


def gradient_between(layers):
    torch.manual_seed(1)
    y = layers[0](torch.randn(4, 8, 16, 16, requires_grad=True))
    y.retain_grad()
    layers[2](layers[1](y)).square().sum().backward()
    return y.grad


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, partial(nn.LeakyReLU, 0.1)], ids=str)
@pytest.mark.parametrize("normed", [True, False])
def test_gates_are_exact_whoever_stores_them(activation, bits, normed):
    torch.manual_seed(0)
    dense = gated(activation())
    razor = copy.deepcopy(dense)
    codec = Uniform(bits, axis=-2)
    include = ["*"] if normed else ["1", "2"]
    razor_(razor, Recipe(*[codec] * 5, rectifier=codec), include=include)
    torch.testing.assert_close(gradient_between(razor), gradient_between(dense))


def test_a_rectifier_between_norm_and_product_stores_nothing():
    codec = Uniform(4, axis=-2)
    recipe = Recipe(*[codec] * 5, rectifier=codec)
    norm = nn.BatchNorm2d(8)
    _, alone = pair(lambda: copy.deepcopy(norm), recipe)
    _, all_three = pair(lambda: gated(nn.ReLU(inplace=True)), recipe)
    shape = (8, 8, 32, 32)
    assert live_after_forward(all_three, shape) == live_after_forward(alone, shape)


def test_a_rectifier_inside_a_norm_stores_bits_once(monkeypatch):
    monkeypatch.setattr("razorlight.codecs.operators._CHUNK_ENTRIES", 1024)
    shape = (8, 8, 32, 32)
    live = [
        live_after_forward(
            pair(lambda options=options: timm.layers.BatchNormAct2d(8, **options), "balanced")[1],
            shape,
        )
        for options in ({"act_layer": nn.ReLU6}, {"apply_act": False})
    ]
    assert live[0] - live[1] == torch.Size(shape).numel() // 8


def test_a_rectifier_before_a_frozen_product_stores_bits():
    layers = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    layers[2].requires_grad_(False)
    razor_(layers, "balanced", include=["1", "2"])
    shape = (2, 8, 34, 34)
    assert live_after_forward(layers[1:], (2, 8, 32, 32)) == 2 * 8 * 32 * 32 // 8
    assert layers(torch.randn(shape)).requires_grad


@pytest.mark.parametrize(
    "unit",
    [lambda: timm.layers.SwiGLU(64, 256, 64), lambda: timm.layers.SwiGLUPacked(64, 512, 64)],
)
def test_a_gated_unit_stores_its_input_and_two_halves(unit):
    codec = Uniform(8, axis=-2)
    _, razor = pair(lambda: nn.Sequential(unit(), nn.Dropout()), Recipe(*[codec] * 5))
    expected = 8 * 256 * (64 + 2 * 256 + 64 // 8)
    assert live_after_forward(razor, (8, 256, 64)) == pytest.approx(expected, rel=0.05)


def test_enlarged_values_are_stored_before():
    class Enlarging(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.conv = nn.Upsample(scale_factor=4), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            return self.conv(self.up(x))

    codec = Uniform(8, axis=-2)
    _, razor = pair(Enlarging, Recipe(*[codec] * 5))
    assert live_after_forward(razor, (8, 8, 16, 16)) < 1.05 * 8 * 8 * 16 * 16


def live_after_forward(layer, shape, train=True, grad=True):
    """Bytes alive between forward and backward, beside parameters, input and output."""
    torch.manual_seed(1)
    x = torch.randn(shape, requires_grad=True)
    layer.train(train)
    with StorageMeter() as meter, torch.set_grad_enabled(grad):
        meter.track(model_tensors(layer), x)
        out = layer(x * 1)
        return meter.live - x.nbytes - sum(t.nbytes for t in model_tensors(layer)) - out.nbytes


LARGE = {3: (2, 8, 1024), 4: (2, 8, 32, 32), 5: (2, 8, 8, 8, 16)}
"""Maps of many entries, by the number of dims."""

BIG = {
    "Linear": (lambda: nn.Linear(64, 4), (8, 64, 64)),
    "Conv2d": (lambda: nn.Conv2d(16, 4, 3), (8, 16, 32, 32)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(16, 4, 3), (8, 16, 32, 32)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(16), (8, 16, 32, 32)),
    "GroupNorm": (lambda: nn.GroupNorm(4, 16), (8, 16, 32, 32)),
    "LayerNorm": (lambda: nn.LayerNorm(256), (8, 64, 256)),
}


@pytest.mark.parametrize("case", BIG)
def test_stored_bytes_of_pruned_values(case):
    factory, shape = BIG[case]
    _, razor = pair(factory, paper(0.9, "fp32"))
    elements = torch.Size(shape).numel()
    bits = live_after_forward(razor, shape) * 8 / elements
    assert 4.19 < bits < 4.46  # values and bitmap 4.2; the statistics of norms up to .25 besides


@pytest.mark.parametrize("case", GATES)
def test_stored_bytes_of_gates(case):
    factory, shape = GATES[case]
    _, razor = pair(factory)
    shape = LARGE[len(shape)]
    with torch.no_grad():
        outputs = razor(torch.zeros(shape)).numel()
    limit = outputs if case.startswith("MaxPool") else torch.Size(shape).numel() // 8
    assert 0 < live_after_forward(razor, shape) <= limit


@pytest.mark.parametrize("case", MEANS)
def test_means_store_nothing(case):
    factory, shape = MEANS[case]
    _, razor = pair(factory)
    assert live_after_forward(razor, LARGE[len(shape)]) == 0


@pytest.mark.parametrize("last", [False, True])
def test_means_keep_the_layout_of_gradients(last):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for factory, shape in MEANS.values():
        layout = formats.get(len(shape), torch.contiguous_format)
        layout = layout if last else torch.contiguous_format
        inputs = [torch.randn(shape).to(memory_format=layout).requires_grad_() for _ in "ab"]
        for layer, x in zip(pair(factory), inputs, strict=True):
            layer(x).square().sum().backward()
        dense, razor = (x.grad.stride() for x in inputs)
        assert razor == dense


@pytest.mark.parametrize("case", [*PRODUCTS, "BatchNorm2d", "timm BatchNormAct2d"])
def test_frozen_stores_nothing(case):
    factory, shape = CASES[case]
    if "Std" in case:  # their weight is standardised by a batch norm of its own
        return
    dense, razor = pair(factory, paper(0.9))
    for layer in (dense, razor):
        layer.requires_grad_(False)
        if case in NORMS:
            layer.eval()
    act = torch.Size(shape).numel() // 8 if case == "timm BatchNormAct2d" else 0
    assert live_after_forward(razor, shape, train=case in PRODUCTS) == act
    # and the input's gradient is exact
    torch.testing.assert_close(run(razor, shape)[1], run(dense, shape)[1])


@pytest.mark.parametrize("case", CASES)
def test_no_grad_costs_nothing(case):
    factory, shape = CASES[case]
    dense, razor = pair(factory, paper(0.9))
    for layer in (dense, razor):
        assert live_after_forward(layer, shape, grad=False) <= 0
    x = torch.randn(shape)
    dense.eval(), razor.eval()
    assert torch.equal(dense(x.clone()), razor(x.clone()))


@pytest.mark.parametrize("case", ["Linear", "Conv2d", "LayerNorm", "timm"])
def test_in_eval_mode_the_recipe_stores_too(case):
    factory, shape = CASES[case]
    dense, razor = pair(factory)
    assert_same(run(razor.eval(), shape), run(dense.eval(), shape), 1e-4)
    dense, pruned = pair(factory, paper(0.9))
    (out, _, ours), (expected, _, theirs) = (run(m.eval(), shape) for m in (pruned, dense))
    assert torch.equal(out, expected)
    assert any(not torch.equal(ours[name], gradient) for name, gradient in theirs.items())


def test_every_registered_class_is_tested():
    tested = {type(layer) for factory, _ in CASES.values() for layer in factory().modules()}
    assert {*known_classes()} <= tested
    assert not [path for path in BY_PATH if not path.startswith("transformers.")]


def test_q_k_and_v_store_their_input_once():
    class Projections(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(64, 64) for _ in "qkv")

        def forward(self, x):
            return self.q(x) + self.k(x) + self.v(x)

    _, three = pair(Projections, paper(0.9))
    _, one = pair(lambda: nn.Linear(64, 64), paper(0.9))
    assert live_after_forward(three, (8, 32, 64)) == live_after_forward(one, (8, 32, 64))


def test_an_in_place_change_makes_the_record_void():
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            y = self.first(x)
            x += 1
            return y + self.second(x)

    dense, razor = pair(Changed, paper(0.0, "fp16"))
    expected = copy.deepcopy(dense)
    x = torch.randn(4, 16)
    expected.second(x + 1).sum().backward()
    razor(x.clone()).sum().backward()
    torch.testing.assert_close(
        razor.second.weight.grad, expected.second.weight.grad, rtol=1e-3, atol=1e-3
    )


def test_backward_twice_over_one_graph():
    _, razor = pair(timm_unit, paper(0.9))
    out = razor(torch.randn(TOKENS)).sum()
    first = torch.autograd.grad(out, razor.qkv.weight, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(out, razor.qkv.weight)[0])


def test_a_product_behind_a_learned_slope_under_autocast():
    net = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.PReLU(), nn.Linear(8, 8))
    x, gradients = torch.randn(4, 8), []
    for convert in (False, True):
        if convert:
            razor_(net, "exact")
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(x).float().square().mean()
        loss.backward()
        gradients.append([p.grad for p in net.parameters()])
    for dense, razor in zip(*gradients, strict=True):
        torch.testing.assert_close(razor, dense, rtol=2e-2, atol=1e-3)


def test_autocast_leaves_no_cached_weight_without_a_graph():
    # a weight shared with a dense layer: autocast must not hand that one a cast made in here
    razor, dense = nn.Linear(8, 8), nn.Linear(8, 8)
    dense.weight = razor.weight
    razor_(razor, include=["*"])
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.randn(2, 8)
        razor(x)
        out = dense(x)
    out.sum().backward()
    assert dense.weight.grad is not None


def test_razor_layers_are_their_dense_class():
    _, razor = pair(timm_unit)
    assert isinstance(razor, RazorLayer)
    assert isinstance(razor, timm.layers.Attention)
    assert "RazorLinear(in_features=16" in repr(razor)
