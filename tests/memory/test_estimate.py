"""A step on fake tensors needs the memory that the step itself needs."""

from contextlib import nullcontext
from itertools import product

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from small_networks import tiny_vit
from torch import nn
from torch.nn.functional import cross_entropy

from razorlight import RECIPES, RazorError, razor_, step_in_backward
from razorlight.memory import StepEstimate, StorageMeter, measure_step
from razorlight.memory.meter import model_tensors, storage_bytes
from razorlight.memory.stand_in import GRANULARITY

NETWORKS = {
    "vit": lambda: tiny_vit(32, 8),
    "resnet": lambda: timm.create_model("resnet10t", num_classes=3),
    "mobile": lambda: timm.create_model("mobilenetv2_035", num_classes=3),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=2, depths=(1, 2), num_heads=(2, 2)
    ),
    "convnext": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1)),
    "unet": lambda: smp.Unet("resnet18", encoder_weights=None, classes=3),
}


def batch(network):
    targets = torch.randint(3, (4, 32, 32) if network == "unet" else (4,))
    return torch.randn(4, 3, 32, 32), targets


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("network", "recipe"),
    [*(("vit", recipe) for recipe in RECIPES), *product(NETWORKS, [None, "balanced", "compact"])],
)
def test_what_is_estimated_is_measured(network, recipe):
    torch.manual_seed(0)
    model, inputs = NETWORKS[network]().train(), batch(network)
    if recipe:
        razor_(model, recipe)
    estimated = StepEstimate(model, loss).memory(inputs)
    measured = measure_step(model, lambda: loss(model, inputs), inputs)
    assert estimated.stored == measured.stored
    assert estimated.peak == pytest.approx(measured.peak, rel=0.02)


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("foreach", [False, True])
def test_with_the_optimizer(foreach, in_backward):
    torch.manual_seed(0)

    def make(model):
        return torch.optim.AdamW(model.parameters(), foreach=foreach)

    model, inputs = tiny_vit(32, 8, width=64), batch("vit")
    optimizer = make(model)
    loss(model, inputs).backward()
    optimizer.step()
    if in_backward:
        optimizer.zero_grad()
    with StorageMeter() as meter:
        meter.track(model_tensors(model), [*optimizer.state.values()], inputs)
        result = loss(model, inputs)
        optimizer.zero_grad()  # where Lightning does it
        with step_in_backward(optimizer) if in_backward else nullcontext():
            result.backward()
        optimizer.step()
    estimate = StepEstimate(model, loss, make, in_backward)
    assert estimate.memory(inputs).peak == pytest.approx(meter.peak, rel=1e-3)
    peak = estimate.peak(inputs)
    assert peak.nbytes == pytest.approx(meter.peak, rel=1e-3)
    assert sum(peak.kinds.values()) == peak.nbytes
    assert peak.kinds["optimizer's state"] == storage_bytes([*optimizer.state.values()])
    assert peak.kinds["gradients"] or in_backward


def test_autocast():
    torch.manual_seed(0)
    model, inputs = tiny_vit(32, 8), batch("vit")
    razor_(model)

    def step(model, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return loss(model, inputs)

    measured = measure_step(model, lambda: step(model, inputs), inputs)
    assert StepEstimate(model, step).stored(inputs) == measured.stored


@pytest.mark.parametrize(("network", "recipe"), [*product(NETWORKS, [None, "compact"])])
def test_as_on_a_gpu(network, recipe):
    pytest.importorskip("triton")
    torch.manual_seed(0)
    model, inputs = NETWORKS[network]().train(), batch(network)
    if recipe:
        razor_(model, recipe)

    def step(model, inputs):
        with torch.autocast("cpu", torch.float16):
            return loss(model, inputs)

    estimate = StepEstimate(model, step, device="cuda")
    memory, peak = estimate.memory(inputs), estimate.peak(inputs)
    assert sum(peak.kinds.values()) == peak.nbytes
    assert peak.nbytes == pytest.approx(memory.peak, rel=0.02)
    assert not any(size % GRANULARITY for size in (*peak.kinds.values(), memory.stored))


def test_stored_is_that_of_the_whole_step():
    def make(model):
        return torch.optim.AdamW(model.parameters())

    estimate = StepEstimate(tiny_vit(32, 8), loss, make)
    assert estimate.stored(batch("vit")) == estimate.memory(batch("vit")).stored > 0


def test_gradients_that_stay():
    torch.manual_seed(0)
    model, inputs = tiny_vit(32, 8, width=64), batch("vit")
    loss(model, inputs).backward()
    with StorageMeter() as meter:
        meter.track(model_tensors(model), inputs)
        loss(model, inputs).backward()
    estimate = StepEstimate(model, loss, keeps_gradients=True)
    estimate.memory(inputs)  # from now on there are gradients
    assert estimate.memory(inputs).peak == pytest.approx(meter.peak, rel=1e-3)


@pytest.mark.parametrize("recipe", [None, "balanced"])
def test_tied_weights_and_dropout_in_attention(recipe):
    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(500, 32)
            self.block = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
            self.head = nn.Linear(32, 500)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.block(self.embed(tokens))).square().mean()

    model, tokens = Tied(), torch.randint(500, (4, 16))
    if recipe:
        razor_(model, recipe)
    estimated = StepEstimate(model, lambda model, x: model(x)).memory(tokens)
    measured = measure_step(model, lambda: model(tokens), tokens)
    assert estimated.stored == measured.stored
    assert estimated.peak == pytest.approx(measured.peak, rel=0.02)


def test_a_number_that_is_logged():
    class Logs(nn.Module):
        def forward(self, x):
            assert isinstance(x.mean().item(), float)
            return x.square().mean()

    model = nn.Sequential(nn.Linear(4, 4), Logs())
    assert StepEstimate(model, lambda model, x: model(x)).stored(torch.empty(2, 4)) > 0


def test_nothing_is_allocated_and_nothing_changes():
    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(2**16, 2**16) for _ in range(16)])  # 256 GiB
        x = torch.empty(2**16, 2**16)
    peak = StepEstimate(model, lambda model, x: model(x).sum()).memory(x).peak
    assert peak > 17 * 2**34 * 2  # weights, gradients, activations
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert all(p.grad is None for p in model.parameters())


def test_what_cannot_be_estimated():
    class Looks(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    model = nn.Sequential(nn.Linear(4, 4), Looks())
    for network, columns in ((model, 4), (nn.Linear(4, 4), 3)):
        estimate = StepEstimate(network, lambda model, x: model(x).sum())
        with pytest.raises(RazorError, match=r"the step cannot be estimated \(.*\); take a size"):
            estimate.stored(torch.empty(2, columns))
    with pytest.raises(RazorError, match="step\\(\\) must return a scalar loss"):
        StepEstimate(model[0], lambda model, x: model(x)).stored(torch.empty(2, 4))
