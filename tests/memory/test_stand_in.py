"""A step on fake tensors of a CPU, as a GPU would run it."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import tiny_vit
from torch import nn
from torch.utils.checkpoint import checkpoint

from razorlight import RazorError, razor_
from razorlight.memory import StepEstimate, plan_within
from razorlight.memory.stand_in import GRANULARITY

pytest.importorskip("triton")


def narrow_step(model, x):
    with torch.autocast("cpu", torch.bfloat16):
        return model(x).float().mean()


def stored(layer, x, step=narrow_step, device="cuda"):
    return StepEstimate(layer, step, device=device).stored(x)


def test_every_tensor_is_rounded_up():
    def step(model, x):
        return model(x).square().sum()

    layer, x = nn.Linear(3, 3), torch.empty(2, 3)
    # the output and the loss
    assert stored(layer, x, step, "cpu") == 2 * 3 * 4 + 4
    assert stored(layer, x, step) == 2 * GRANULARITY


def test_a_norm_runs_in_float32():
    x = torch.empty(8, 128, 64)
    layer = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64, elementwise_affine=False))
    by_cpu, by_gpu = (stored(layer, x, device=device) for device in ("cpu", "cuda"))
    # the input of the norm, the output before the loss casts it, and the statistics
    wider = 2 * x.numel() + 2 * 2 * 8 * 128
    assert by_gpu - by_cpu == pytest.approx(wider, abs=4 * GRANULARITY)


@pytest.mark.parametrize("recipe", [None, "exact", "balanced"])
def test_norms_and_softmax_give_float32(recipe):
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 64), nn.Softmax(-1))
    if recipe:
        razor_(model, recipe)
    dtypes = []
    for layer in (model[1], model[3]):
        layer.register_forward_hook(lambda _, inputs, out: dtypes.append(out.dtype))
    StepEstimate(model, narrow_step, device="cuda").memory(torch.empty(8, 64))
    assert dtypes == [torch.float32] * 2


def test_a_checkpoint_runs_forward_again_as_it_ran():
    layers = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 64), nn.Dropout())

    def step(model, x):
        with torch.autocast("cpu", torch.bfloat16):
            return checkpoint(model, x, use_reentrant=False).float().mean()

    x = torch.empty(1024, 64, requires_grad=True)
    checkpointed, dense = (stored(layers, x, each) for each in (step, narrow_step))
    assert checkpointed < dense / 2
    assert StepEstimate(layers, step, device="cuda").memory(x).peak > dense


def test_dropout_keeps_a_byte_an_entry():
    x = torch.empty(4096, requires_grad=True)
    layer = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
    layer.weight = nn.Parameter(torch.empty(4096))

    def step(model, x):
        return model(x * model.weight).sum()

    by_cpu, by_gpu = (stored(layer, x, step, device) for device in ("cpu", "cuda"))
    assert by_cpu - by_gpu == pytest.approx(3 * 4096, abs=GRANULARITY)


@pytest.mark.parametrize("recipe", [None, "balanced"])
def test_dropout_in_attention_keeps_no_weights(recipe):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)

    layer, x = Attention(), torch.empty(2, 4, 256, 8)
    if recipe:
        razor_(layer, recipe, include=["*"])
    weights = 2 * 4 * 256 * 256 * 4
    assert stored(layer, x) < weights / 4


def test_statistics_are_wide():
    layer, x = nn.LayerNorm(4).to(torch.bfloat16), torch.empty(1024, 4, dtype=torch.bfloat16)
    layer = nn.Sequential(layer, nn.LayerNorm(4).to(torch.bfloat16))

    def step(model, x):
        return model(x).sum()

    by_cpu, by_gpu = (stored(layer, x, step, device) for device in ("cpu", "cuda"))
    assert by_gpu - by_cpu == pytest.approx(2 * 2 * 1024 * 2, abs=GRANULARITY)


def test_the_optimizer_steps_all_at_once():
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))
    x = torch.empty(2, 64)

    def make(model):
        return torch.optim.AdamW(model.parameters())

    def peak(device):
        return StepEstimate(model, narrow_step, make, device=device).peak(x)

    weights = 8 * 64 * 64 * 4
    one_by_one, at_once = peak("cpu"), peak("cuda")
    assert at_once.nbytes - one_by_one.nbytes > weights / 2
    assert "in the optimizer's step" in at_once.instant


def test_a_value_is_encoded_whole():
    """The ends of a group, and the codes: nothing else, where torch code makes copies of chunks."""
    model, x = (
        nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 1)),
        torch.empty(2**14, 64),
    )
    razor_(model, "balanced")

    def step(model, x):
        return model(x).sum()

    by_cpu, by_gpu = (StepEstimate(model, step, device=d).peak(x) for d in ("cpu", "cuda"))
    assert by_gpu.kinds["temporaries"] < by_cpu.kinds["temporaries"]


def test_a_budget_on_a_gpu():
    torch.manual_seed(0)
    model, x = tiny_vit(32, 8, width=64), torch.empty(64, 3, 32, 32)
    found = plan_within(0.8, model, narrow_step, x, device="cuda")
    assert found.peak <= 0.8 * found.dense_peak
    assert not found.peak % GRANULARITY


def test_what_is_refused(monkeypatch):
    layer, x = nn.Linear(2, 2), torch.empty(1, 2)
    with pytest.raises(RazorError, match="device: 'tpu' is none of cpu, cuda"):
        StepEstimate(layer, narrow_step, device="tpu")
    monkeypatch.setattr("razorlight.memory.stand_in.find_spec", lambda name: None)
    with pytest.raises(RazorError, match="pip install triton"):
        stored(layer, x)
