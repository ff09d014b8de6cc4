"""A layer as converted and dense: made, run and compared."""

import copy
import math
from dataclasses import replace

import torch

from razorlight import Recipe, Uniform, razor_
from razorlight.planning import exact, paper

EXACT = [
    replace(exact(), max_rerun_cost=0),
    replace(exact(), max_rerun_cost=math.inf),
    paper(0.0, "fp32"),
]


def pair(factory, recipe=EXACT[0], dtype=torch.float32):
    torch.manual_seed(0)
    dense = factory().to(dtype)
    with torch.no_grad():
        for parameter in dense.parameters():  # zeros and ones hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.1)
    razor = copy.deepcopy(dense)
    razor_(razor, recipe=recipe, include=["*"])
    return dense, razor


def run(layer, shape, dtype=torch.float32, device_dtype=None):
    """Output, input gradient and parameter gradients; inputs and draws always the same."""
    torch.manual_seed(1)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=device_dtype or torch.bfloat16, enabled=bool(device_dtype)):
        out = layer(x * 1)  # not a leaf: layers in place may overwrite it
    out.backward(torch.randn(out.shape).to(out.dtype))
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return out.detach(), x.grad, gradients


def assert_same(result, expected, tolerance):
    """Equal outputs, and gradients within ``tolerance`` of the largest entry of each."""
    out, d_x, gradients = result
    assert torch.equal(out, expected[0])
    assert gradients.keys() == expected[2].keys()
    pairs = {"input": (d_x, expected[1])}
    pairs |= {name: (gradient, expected[2][name]) for name, gradient in gradients.items()}
    largest = max(gradient.abs().max().item() for _, gradient in pairs.values())
    for name, (gradient, dense) in pairs.items():
        # a gradient that is zero in theory comes out as noise of the others' size
        size = max(dense.abs().max().item(), 0.1 * largest)
        torch.testing.assert_close(gradient, dense, rtol=tolerance, atol=tolerance * size, msg=name)


def eight_bits(reruns):
    codec = Uniform(8)
    return Recipe(*[codec] * 5, rectifier=codec, max_rerun_cost=math.inf if reruns else 0)
