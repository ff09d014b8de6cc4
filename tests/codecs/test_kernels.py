"""The Triton kernels in Triton's interpreter give the bits of the torch code."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import tiny_vit
from torch import nn

from razorlight import Uniform, razor_
from razorlight.codecs import kernels as codec_kernels
from razorlight.functional import normalise

pytest.importorskip("triton")
from triton.runtime import interpreter

from razorlight.codecs.kernels import uniform
from razorlight.codecs.kernels.operands import divisor

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity and NaN

HERE = Path(__file__).parent
KEPT = ["ends", "signs", "zeros"]
CODECS = [
    *(Uniform(bits, axis=-2, preserves=kept) for bits in (2, 3, 4, 5, 6, 8, 11) for kept in KEPT),
    *(Uniform(bits, axis=-2, token_scale=True) for bits in (4, 5)),
    Uniform(3, 64, axis=-2, preserves="zeros", token_scale=True),
    Uniform(11, axis=-2, token_scale=True, companded=True),
    Uniform(4),
    Uniform(4, 32, axis=-1),
    Uniform(5, 64, axis=1, preserves="signs"),
]
SHAPES = [(2, 37, 136), (8, 9, 40), (4, 3, 50, 4), (16, 3, 7, 7), (8, 5), (8, 1, 300)]


@pytest.fixture(autouse=True)
def fused_as_a_gpu_fuses(monkeypatch):
    """Round a fused product and sum once, as torch and a GPU do. The interpreter rounds twice."""

    def create_fma(self, x, y, z):
        wide = x.data.astype(np.float64) * y.data.astype(np.float64) + z.data.astype(np.float64)
        return interpreter.TensorHandle(wide.astype(x.data.dtype), x.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", create_fma)


def assert_same(ours, torchs):
    for a, b in zip(ours, torchs, strict=True):
        # the interpreter cuts digits off where a GPU rounds to bfloat16
        rtol = 2**-7 if a.dtype == torch.bfloat16 and a.ndim < 6 else 0
        torch.testing.assert_close(a, b, rtol=rtol, atol=0, equal_nan=True)


def compare(codec, x):
    """Compare both encodings and both decodings of ``x``.

    A group with a NaN or an infinity is spoilt: its entries are not finite, and need not be equal.
    """
    how = {"shape": x.shape, "dtype": x.dtype}
    ours, torchs = uniform.encode(codec, x), codec.encode(x)
    if x.isfinite().all():
        assert_same(ours, torchs)
    backs = uniform.decode(codec, *torchs, **how), codec.decode(*ours, **how)
    right = codec.decode(*torchs, **how)
    assert_same(
        [back.where(back.isfinite(), torch.nan) for back in backs],
        [right.where(right.isfinite(), torch.nan)] * 2,
    )


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_the_same_bits(codec):
    torch.manual_seed(0)
    served = [shape for shape in SHAPES if uniform.serves(codec, torch.Size(shape))]
    assert len(served) > 3
    for shape in served:
        compare(codec, torch.randn(shape) * 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes_and_strides(dtype):
    torch.manual_seed(0)
    x = torch.randn(3, 40, 4, 8, dtype=dtype).transpose(1, 2)  # heads of a projection
    compare(Uniform(5, axis=-2, token_scale=True), x)
    compare(Uniform(4, axis=-2), torch.randn(8, 16, 48, dtype=dtype)[:, :, ::3])


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("scaled", [False, True])
def test_strange_values(kept, scaled):
    torch.manual_seed(0)
    x = torch.randn(4, 40, 32)
    x[0, 0, 0], x[0, 1, 1], x[1, 2, 2] = math.nan, math.inf, -math.inf
    x[2, :, 0], x[2, :, 1], x[2, :, 2], x[2, :, 3] = 0, 7.25, -7.25, -0.0
    x[3, :, :8], x[3, :, 8:16], x[3, :, 16:24] = 1e-40, 1e38, -1e-30
    compare(Uniform(4, axis=-2, preserves=kept, token_scale=scaled), x)


def test_scales_of_tokens():
    torch.manual_seed(0)
    codec = Uniform(4, axis=-2, token_scale=True)
    x = torch.randn(8, 30, 64) * torch.logspace(-15, 15, 240).view(8, 30, 1)
    x[0, 0], x[1, 1], x[2, 2, 5], x[3, 3, 6] = 0, -7, math.inf, math.nan
    assert_same(uniform.encode(codec, x)[-1:], codec.encode(x)[-1:])


NORMS = {
    "layer": nn.LayerNorm(48),
    "rms": nn.RMSNorm(48),
    "group": nn.GroupNorm(4, 8),
    "batch": nn.BatchNorm2d(8),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_norm_is_encoded_while_it_is_normalised(norm, form, monkeypatch):
    torch.manual_seed(0)
    dense = nn.Sequential(NORMS[norm], nn.Conv2d(8, 8, 1))
    x = torch.randn(4, 8, *((8, 48) if "48" in str(NORMS[norm]) else (12, 12)))
    gradients = []
    for launches in (False, True):
        calls = note_calls(monkeypatch, launches)
        model, leaf = copy.deepcopy(dense), x.contiguous(memory_format=form).requires_grad_()
        razor_(model, "balanced", include=["*"])
        model(leaf).square().mean().backward()
        gradients.append([leaf.grad, *(p.grad for p in model.parameters())])
    assert_same(*gradients)
    encodes = [count for name, count in calls if name == "encode"]
    assert encodes == [4]  # codec, value, mean and 1/std


@pytest.mark.parametrize("number", [2, 3, 7, 64, 197, 9456, 75648, 2**16 + 1, 2**30, 2**31 - 1])
def test_kernels_divide_exactly(number):
    by = divisor(number)
    assert 2**31 <= by.magic < 2**32  # so that a product fits in int64
    for n in (0, 1, number - 1, number, 2**31 - 1, (2**31 - 1) // number * number):
        for near in (n - 1, n, n + 1):
            if 0 <= near < 2**31:
                assert near * by.magic >> by.shift == near // number


def test_stochastic_rounding_keeps_the_mean():
    torch.manual_seed(0)
    codec, x = Uniform(2, axis=-2, stochastic=True), torch.rand(8, 64, 8)
    how = {"shape": x.shape, "dtype": x.dtype}
    backs = [uniform.decode(codec, *uniform.encode(codec, x), **how) for _ in range(32)]
    assert not torch.equal(backs[0], backs[1])
    step = float(codec.encode(x)[-1].float().max())
    assert max(float((back - x).abs().max()) for back in backs) < step * 1.01
    assert abs(float((torch.stack(backs).mean(0) - x).mean())) < step / 200


def test_what_is_left_to_torch():
    assert not uniform.serves(Uniform(4), torch.Size([0, 8]))
    assert not uniform.serves(Uniform(4), torch.Size([16, 0]))  # empty lines are filled up
    assert not uniform.serves(Uniform(4), torch.Size([3, 5]))  # rows of 15 entries, no whole bytes
    short = Uniform(4, axis=-2, token_scale=True)  # a line too short for a group of its own
    assert not uniform.serves(short, torch.Size([3, 4, 64]))


@pytest.mark.parametrize("recipe", ["balanced", "compact"])
def test_a_network_trains_with_the_bits_of_the_torch_code(recipe, monkeypatch):
    torch.manual_seed(0)
    dense, images = tiny_vit(48, 8, width=64), torch.randn(4, 3, 48, 48)
    gradients = []
    for launches in (False, True):
        calls = note_calls(monkeypatch, launches)
        model = copy.deepcopy(dense)
        razor_(model, recipe)
        model(images).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
        assert bool(calls) == launches
    assert_same(*gradients)


def note_calls(monkeypatch, launches):
    """Let kernels run, or not; return a list of the name and number of arguments of each call."""
    monkeypatch.setattr(codec_kernels, "can_launch", lambda like: launches)
    # the kernels of the backward of norms give gradients with other roundings
    monkeypatch.setattr(normalise, "norm_kernels_for", lambda codes: None)
    calls = []

    def noted(name, function):
        def call(*args, **options):
            calls.append((name, len(args)))
            return function(*args, **options)

        return call

    for name in ("encode", "decode"):
        monkeypatch.setattr(uniform, name, noted(name, getattr(uniform, name)))
    return calls


def test_a_gpu_compiles_the_kernels():
    """For a T4 and an H100; to compile needs no GPU."""
    code = "import compiled_kernels; compiled_kernels.compile_all([75, 90])"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE, env=environment)
