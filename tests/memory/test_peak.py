"""What sets the peak is named, and all that is alive then is told apart."""

import pytest
import torch
from small_networks import tiny_vit
from torch import nn

from razorlight import RazorError, razor_
from razorlight.memory import find_peak, measure_step


def mlp():
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))


@pytest.mark.parametrize("recipe", [None, "exact", "balanced", "compact", "checkpoint", "paper"])
def test_the_kinds_add_up_to_the_peak_that_is_measured(recipe):
    torch.manual_seed(0)
    model, x = tiny_vit(48, 8, width=64), torch.randn(4, 3, 48, 48)
    if recipe:
        razor_(model, recipe)
    optimizer = torch.optim.AdamW(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()

    def step():
        return model(x).square().mean()

    peak, size = find_peak(model, step, x, optimizer), sum(p.nbytes for p in model.parameters())
    assert sum(peak.kinds.values()) == peak.nbytes
    assert peak.kinds["parameters"] == size
    assert 2 * size <= peak.kinds["optimizer's state"] < 2.01 * size  # and the steps
    assert peak.kinds["batch"] == x.nbytes
    measured = measure_step(model, step, x).peak
    assert abs(peak.nbytes - peak.kinds["optimizer's state"] - measured) < 100
    assert recipe or not peak.kinds["records"]
    assert peak.kinds["records"] > peak.kinds["dense values"] or recipe not in ("exact", "balanced")
    assert all(p.grad is None for p in model.parameters())


def test_by_hand():
    model, x = mlp(), torch.randn(512, 64)
    peak = find_peak(model, lambda: model(x).sum(), x)
    hidden = 512 * 256 * 4
    assert peak.kinds["dense values"] == 2 * hidden
    # the gradients of the hidden value, of the second weight and its bias, and of the loss
    assert peak.kinds["temporaries"] == hidden + (256 + 1) * 64 * 4 + 8
    assert peak.layers == {"1": hidden, "2": hidden}
    assert str(peak).splitlines() == [
        "peak 1.81 MiB, in the backward of 2 (aten.sum)",
        "      0.13  parameters",
        "      0.12  batch",
        "      1.00  dense values",
        "      0.56  temporaries",
        "stored 1.00 MiB between forward and backward",
        "      0.50  1",
        "      0.50  2",
    ]


def test_a_peak_in_forward():
    class Wide(nn.Module):
        def forward(self, x):
            return x.detach().repeat(1, 100).sum() * x.sum()

    model, x = nn.Sequential(nn.Linear(64, 64), Wide()), torch.randn(64, 64)
    peak = find_peak(model, lambda: model(x), x)
    assert peak.instant == "in the forward of 1 (aten.sum)"  # of what was repeated
    assert peak.kinds["temporaries"] >= 100 * x.nbytes


def test_a_checkpoint_runs_again():
    model, x = tiny_vit(48, 8, width=64), torch.randn(4, 3, 48, 48)
    model.set_grad_checkpointing()
    peak = find_peak(model, lambda: model(x).sum(), x)
    assert peak.instant.startswith("in the second forward of blocks.")


def test_where_it_cannot_be_found():
    model, x, runs = mlp(), torch.randn(8, 64), []

    def shrinks():
        runs.append(1)
        return model(x[: 8 // len(runs)]).sum()

    with pytest.raises(RazorError, match="needs less memory than the one before"):
        find_peak(model, shrinks, x)
    with pytest.raises(RazorError, match="on a CPU only, the model is on meta"):
        find_peak(mlp().to("meta"), lambda: None)
