"""Linears that bitsandbytes and torchao have quantised stay as they are, and are named."""

import copy

import pytest
import torch
from torch import nn

from razorlight import razor_

bitsandbytes = pytest.importorskip("bitsandbytes")
torchao = pytest.importorskip("torchao.quantization")

pytestmark = pytest.mark.clients


def network(linear):
    return nn.Sequential(
        nn.Linear(16, 16), nn.LayerNorm(16), linear, nn.GELU(), nn.Linear(32, 4)
    ).to("cpu")  # which is when bitsandbytes quantises


def of_torchao():
    model = network(nn.Linear(16, 32))
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig(), lambda _, name: name == "2")
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: network(bitsandbytes.nn.Linear4bit(16, 32)), "a class that is not registered"),
        (
            lambda: network(bitsandbytes.nn.Linear8bitLt(16, 32, has_fp16_weights=False)),
            "a class that is not registered",
        ),
        (of_torchao, "its weights are of Int8Tensor"),
    ],
    ids=["bitsandbytes 4 bits", "bitsandbytes 8 bits", "torchao"],
)
def test_quantised_linears_are_named_and_left(make, reason):
    torch.manual_seed(0)
    dense = make()
    razor = copy.deepcopy(dense)
    report = razor_(razor, "exact")
    assert {line.name: line.detail for line in report.lines}["2"].endswith(reason)
    assert type(razor[2]) is type(dense[2])
    x = torch.randn(3, 5, 16)
    outs = [model(x) for model in (dense, razor)]
    assert torch.equal(*outs)
    for out in outs:
        out.square().sum().backward()
    torch.testing.assert_close(razor[0].weight.grad, dense[0].weight.grad)
