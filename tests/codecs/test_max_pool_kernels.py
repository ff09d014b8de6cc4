"""Kernels of max pooling give the maxima, the places and the gradients that torch code gives."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razorlight import razor_
from razorlight.codecs import kernels as codec_kernels

pytest.importorskip("triton")
from razorlight.codecs.kernels import Pooling, max_pool

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity

WINDOWS = {
    "of a ResNet": (3, 2, 1),
    "apart": (2, 2, 0),
    "small and overlapping": (2, 1, 1),
    "dilated": (3, 2, 1, 2),
    "not square": ((2, 3), (2, 1), (1, 0)),
    "large": (5, 3, 2),
    "with a ceiling": (3, 2, 1, 1, False, True),
    "apart, with a ceiling": (2, 3, 0, 1, False, True),
}
FORMS = [torch.contiguous_format, torch.channels_last]


def pooled(monkeypatch, launches, x, options):
    """The output, what is stored of it, and the gradient of the input."""
    monkeypatch.setattr(codec_kernels, "can_launch", lambda like: launches)
    calls = []
    for name in ("pool", "gradient", "pick"):
        function = getattr(max_pool, name)
        monkeypatch.setattr(max_pool, name, lambda *a, n=name, f=function: calls.append(n) or f(*a))
    model, stored = nn.Sequential(nn.MaxPool2d(*options)), []
    razor_(model, "balanced", include=["*"])
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        out = model(leaf)
    (out * torch.arange(float(out.numel())).view(out.shape).cos()).sum().backward()
    return out, stored, leaf.grad, calls


@pytest.mark.parametrize("options", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_as_torch_code(options, form, dtype, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 11, 14).mul(2).round().to(dtype)  # with equal maxima
    x[0, 0, 3, 3], x[0, 1, 4:7, 5], x[1, 2, :6] = math.nan, math.nan, -math.inf
    x = x.contiguous(memory_format=form)
    (out, stored, grad, calls), (out_torch, stored_torch, grad_torch, none) = (
        pooled(monkeypatch, launches, x, options) for launches in (True, False)
    )
    assert (calls, none) == (["pool", "gradient"], [])
    torch.testing.assert_close(out, out_torch, rtol=0, atol=0, equal_nan=True)
    assert out.stride() == out_torch.stride()
    for a, b in zip(stored, stored_torch, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    # the interpreter cuts digits off where a GPU rounds
    tolerance = 1e-6 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(grad, grad_torch, rtol=tolerance, atol=tolerance)
    assert grad.stride() == grad_torch.stride()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_value_near_the_one_that_was_pooled(form, monkeypatch):
    """The layer that follows reads the stored value at the places of the maxima."""
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.MaxPool2d(3, 2, 1)
    dense = nn.Sequential(*parts, nn.Conv2d(16, 8, 1))
    x, gradients = torch.randn(8, 3, 8, 8).contiguous(memory_format=form), []
    for launches in (False, True):
        monkeypatch.setattr(codec_kernels, "can_launch", lambda like, found=launches: found)
        picked, pick = [], max_pool.pick
        monkeypatch.setattr(max_pool, "pick", lambda *a, f=pick, p=picked: p.append(1) or f(*a))
        model = copy.deepcopy(dense)
        razor_(model, "balanced", include=["*"])
        model(x).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
        assert len(picked) == launches
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_windows_that_torch_refuses(monkeypatch):
    monkeypatch.setattr(codec_kernels, "can_launch", lambda like: True)
    for options in ((3, 1, 2), (9, 1, 0)):
        model = nn.Sequential(nn.MaxPool2d(*options))
        razor_(model, "balanced", include=["*"])
        x = torch.randn(1, 2, 6, 6)
        with pytest.raises(RuntimeError) as ours:
            model(x.requires_grad_())
        with pytest.raises(RuntimeError) as theirs:
            F.max_pool2d(x, *options)
        assert str(ours.value) == str(theirs.value)


def test_a_window_between_the_entries_of_a_small_map():
    x, how = torch.randn(2, 3, 2, 2), Pooling(([2, 2], [1, 1], [1, 1], [3, 3]), 2, False)
    out, places = max_pool.pool(x, how, [1, 1])
    assert (out == -math.inf).all()
    assert not places.any()
    assert (max_pool.pick(x, places, how, [1, 1]) == -math.inf).all()
    assert not max_pool.gradient(torch.ones_like(out), places, how, x.shape).any()
