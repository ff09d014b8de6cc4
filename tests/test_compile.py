"""torch.compile traces razor layers whole, and computes what eager does."""

import copy

import pytest
import timm
import torch
from torch import nn

from razorlight import razor_


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
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        depth=2,
        embed_dim=32,
        num_heads=2,
        init_values=0.1,
    )


def transformer_written_out():
    model = transformer()
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


@pytest.mark.parametrize("recipe", ["paper", "exact", "balanced", "compact"])
@pytest.mark.parametrize("build", [convolutional, transformer, transformer_written_out])
def test_compiled_whole(build, recipe):
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
