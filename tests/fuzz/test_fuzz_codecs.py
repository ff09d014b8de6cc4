"""Every codec on any tensor: its error, its shape and dtype, and its stored bytes as promised."""

import torch
from cases import LAYOUTS, VALUES
from hypothesis import given
from hypothesis import strategies as st
from kinds import shapes

from razorlight import Dense, Mask, Slope, TopK, Uniform
from razorlight.codecs import encode
from razorlight.codecs.base import storage_dtype

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
floats = st.sampled_from(["fp32", "fp16", "bf16"])
EPS = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-24, torch.float64: 0.0}


@st.composite
def tensors(draw, dtypes=DTYPES):
    shape = draw(shapes(0, 4) | st.tuples(st.integers(1, 9), st.integers(1, 600)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = VALUES[draw(st.sampled_from([*VALUES]))](torch.randn(shape, generator=generator))
    return LAYOUTS[draw(st.sampled_from([*LAYOUTS]))](x.to(draw(st.sampled_from(dtypes))))


def roundtrip(codec, x):
    """What comes back, once shape, dtype and bytes are as promised."""
    stored = codec.encode(x)
    restored = codec.decode(*stored, shape=x.shape, dtype=x.dtype)
    assert (restored.shape, restored.dtype) == (x.shape, x.dtype)
    bits = sum(tensor.numel() * tensor.itemsize * 8 for tensor in stored)
    assert bits == codec.nbits(x.shape, x.dtype)
    assert all(torch.equal(a, b) for a, b in zip(stored, encode(codec, x), strict=True))
    return restored.double(), x.double()


@given(tensors(), floats)
def test_dense(x, values):
    restored, x64 = roundtrip(Dense(values), x)
    rounding = EPS[storage_dtype(x.dtype, values)]
    assert ((restored - x64).abs() <= rounding * x64.abs() + 2**-24).all()


@given(tensors(), st.booleans())
def test_mask(x, number):
    mask = x > 0
    stored = Mask().encode(mask)
    dtype = x.dtype if number else torch.bool
    assert torch.equal(Mask().decode(*stored, shape=x.shape, dtype=dtype), mask.to(dtype))
    assert stored[0].numel() * 8 == Mask().nbits(x.shape, torch.bool)


@st.composite
def uniform(draw, x):
    axis = draw(st.none() | st.integers(-x.ndim, x.ndim - 1)) if x.ndim else None
    bits = draw(st.sampled_from([2, 3, 4, 5, 6, 8, 11]))
    group = draw(st.sampled_from([256, 1, 7, 32]))
    return Uniform(bits, group, axis), draw(st.sampled_from(["ends", "random", "signs", "zeros"]))


@given(st.data())
def test_uniform(data):
    x = data.draw(tensors())
    plain, kind = data.draw(uniform(x))
    codec = plain if kind in ("ends", "random") else plain.preserving(kind)
    codec = (
        Uniform(plain.bits, plain.group, plain.axis, kind == "random")
        if kind == "random"
        else codec
    )
    torch.default_generator.manual_seed(0)
    stored = codec.encode(x)
    restored = codec.decode(*stored, shape=x.shape, dtype=x.dtype).double()
    assert restored.shape == x.shape
    bits = sum(tensor.numel() * tensor.itemsize * 8 for tensor in stored)
    assert bits == codec.nbits(x.shape, x.dtype)
    true = x.double().clamp(min=0) if kind == "zeros" else x.double()
    if kind in ("signs", "zeros"):
        assert torch.equal(restored > 0, true > 0)
    if x.numel():
        low = min(0.0, true.min().item()) if kind != "ends" else true.min().item()
        span, largest = true.max().item() - low, true.abs().max().item()
        steps = {"ends": 0.5, "random": 1.0, "signs": 1.0, "zeros": 0.5}[kind]
        bound = 1.02 * steps * max(span, 0) / (2**codec.bits - 1) + 2**-6 * largest
        assert (restored - true).abs().max() <= bound + 1e-30


@given(
    tensors(),
    st.sampled_from([0.0, 0.3, 0.5, 0.87, 0.9, 0.97]),
    st.sampled_from(["sample", "block"]),
    floats | st.just("int8"),
)
def test_topk(x, sparsity, scope, values):
    codec = TopK(sparsity, scope, values)
    restored, x64 = roundtrip(codec, x)
    if not x.numel():
        return
    size = 256 if scope == "block" else x64.numel() // (len(x64) if x.ndim > 1 else 1)
    rows, ours = (_rows(t, size) for t in (x64, restored))
    kept = min(size, max(1, round(size * (1 - sparsity))))
    assert ((ours != 0).sum(1) <= kept).all()
    largest = rows.abs().amax(1, keepdim=True)
    rounding = 0.51 / 127 if values == "int8" else EPS[storage_dtype(x.dtype, values)]
    if values == "int8":
        rounding += EPS[x.dtype] + 2**-10  # the scale's and the result's
    slack = rounding * largest + 2**-23
    least = rows.abs().topk(kept, dim=1).values[:, -1:]
    # what is kept is right, and what is not is no larger than the least that is
    error = (ours - rows).abs()
    assert ((error <= slack) | ((ours == 0) & (rows.abs() <= least + slack))).all()


def _rows(x, size):
    flat = x.flatten()
    padding = -flat.numel() % size
    return torch.cat([flat, flat.new_zeros(padding)]).view(-1, size)


@given(
    tensors(),
    st.sampled_from([2, 3, 4]),
    st.sampled_from(["gelu", "gelu_tanh", "silu", "hardswish"]),
)
def test_slope(x, bits, function):
    slopes, x64 = roundtrip(Slope(bits, function), x)
    assert ((slopes >= -0.51) & (slopes <= 1.51)).all()
    assert (slopes[x64 < -16] == 0).all()
    assert (slopes[x64 > 16] == 1).all()
