import math

import pytest
import torch

from razorlight import Dense, Mask, RazorError, TopK, Uniform
from razorlight.codecs import decode, encode, parse_codec

TOPK = [
    TopK(sparsity, scope, values)
    for sparsity in (0.0, 0.5, 0.9, 0.97)
    for scope in ("sample", "block")
    for values in ("fp32", "fp16", "bf16", "int8")
]
SHAPES = [(4, 7, 5, 3), (2, 1000), (300,), (1, 1), (3, 256, 2)]


def roundtrip(codec, x):
    stored = codec.encode(x)
    return stored, codec.decode(*stored, shape=x.shape, dtype=x.dtype)


def stored_bits(stored):
    return sum(tensor.numel() * tensor.itemsize * 8 for tensor in stored)


@pytest.mark.parametrize("codec", [*TOPK, Dense("fp16"), Dense()], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_dtype_and_bits(codec, shape):
    x = torch.randn(shape)
    stored, restored = roundtrip(codec, x)
    assert restored.shape == x.shape
    assert restored.dtype == x.dtype
    assert stored_bits(stored) == codec.nbits(x.shape, x.dtype)


@pytest.mark.parametrize("codec", TOPK, ids=str)
def test_topk_keeps_the_largest(codec):
    x = torch.randn(3, 512)
    _, restored = roundtrip(codec, x)
    rows = x.view(-1, 256) if codec.scope == "block" else x
    restored = restored.view(rows.shape)
    kept = round(rows.shape[1] * (1 - codec.sparsity))
    threshold = rows.abs().topk(kept, dim=1).values[:, -1:]
    expected = torch.where(rows.abs() >= threshold, rows, 0)
    # half a step of int8 at the largest value; 2^-9 and 2^-12 relative for bf16 and fp16
    step = rows.abs().amax(1, keepdim=True) / 127
    tolerance = {"fp32": 0, "fp16": 2**-11, "bf16": 2**-8, "int8": step * 0.51}[codec.values]
    error = (restored - expected).abs()
    assert (
        error <= torch.as_tensor(tolerance) * (1 if codec.values == "int8" else x.abs().max())
    ).all()


@pytest.mark.parametrize("scope", ["sample", "block"])
def test_ties_do_not_blow_up(scope):
    x = torch.relu(torch.randn(2, 1024) - 1)  # 84 % zeros: a threshold would keep them all
    x[1] = 1.0
    codec = TopK(0.5, scope, "fp32")
    stored, restored = roundtrip(codec, x)
    assert stored_bits(stored) == codec.nbits(x.shape, x.dtype)
    assert torch.equal(restored[0], x[0])
    assert restored[1].count_nonzero() == 512


def test_published_size_of_a_sample():
    # back to the paper's b(1-p) + 1/8 bytes an element, b = 4, p = .9
    assert TopK(0.9, "sample", "fp32").nbits((8, 1000), torch.float32) == 8 * 1000 * (32 * 0.1 + 1)


def test_block_takes_the_smaller_of_index_and_bitmap():
    dense, sparse = TopK(0.87, "block", "int8"), TopK(0.9, "block", "int8")
    assert dense.nbits((256,), torch.float32) == 256 + 33 * 8 + 16
    assert sparse.nbits((256,), torch.float32) == 26 * 16 + 16


def test_values_out_of_the_range_of_half():
    x = torch.tensor([[1e6, -1e6, 1.0, 0.0]])
    _, restored = roundtrip(Dense("fp16"), x)
    assert restored.tolist() == [[65504.0, -65504.0, 1.0, 0.0]]
    infinite = torch.tensor([[math.inf, 1.0]])
    assert roundtrip(Dense("fp16"), infinite)[1][0, 0] == math.inf
    # a bfloat16 tensor keeps its own 16 bits
    assert roundtrip(Dense("fp16"), x.bfloat16())[0][0].dtype == torch.bfloat16


def test_int8_clamps_and_keeps_zero_rows():
    x = torch.stack([torch.zeros(256), torch.full((256,), 1e30), torch.randn(256)])
    _, restored = roundtrip(TopK(0.0, "sample", "int8"), x)
    assert (restored[0] == 0).all()
    torch.testing.assert_close(restored[1], x[1], rtol=1e-3, atol=0)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_mask_is_exact(n):
    mask = torch.rand(n) > 0.5
    stored, restored = roundtrip(Mask(), mask)
    assert torch.equal(restored, mask)
    assert stored[0].numel() == (n + 7) // 8


@pytest.mark.parametrize("scope", ["sample", "block"])
def test_empty_batch_and_strides(scope):
    codec = TopK(0.9, scope, "int8")
    for shape in ((0, 5), (5, 0), (0,)):
        assert roundtrip(codec, torch.empty(shape))[1].shape == shape
    x = torch.randn(4, 6, 8).permute(2, 0, 1)
    assert torch.equal(roundtrip(codec, x)[1], roundtrip(codec, x.contiguous())[1])


def test_parse():
    spec = {"codec": "topk", "sparsity": 0.7, "scope": "block", "values": "int8"}
    assert parse_codec(spec) == TopK(0.7, "block", "int8")
    assert parse_codec("dense") == Dense()
    assert spec["codec"] == "topk"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("topkk", "unknown codec"),
        ({"sparsity": 0.5}, "unknown codec"),
        ({"codec": "topk", "sparsty": 0.5}, "sparsty"),
        ({"codec": "topk", "sparsity": 1.5}, r"\[0, 1\)"),
        ({"codec": "topk", "scope": "row"}, "sample or block"),
        ({"codec": "topk", "values": "fp8"}, "fp32, fp16, bf16 or int8"),
        ({"codec": "dense", "values": "int8"}, "fp32, fp16 or bf16"),
        ({"codec": "uniform", "bits": "6"}, "uniform: bits must be a whole number, got '6'"),
        ({"codec": "uniform", "axis": "x"}, "axis must be a whole number or null, got 'x'"),
        ({"codec": "uniform", "group": 2.5}, "group must be a whole number, got 2.5"),
        ({"codec": "uniform", "stochastic": "no"}, "stochastic must be true or false, got 'no'"),
        ({"codec": "uniform", "preserves": 1}, "preserves must be a name, got 1"),
        ({"codec": "topk", "sparsity": float("nan")}, "sparsity must be a number, got nan"),
        ({"codec": "topk", "sparsity": True}, "sparsity must be a number, got True"),
        ({"codec": "dense", "values": 16}, "values must be a name or null, got 16"),
    ],
)
def test_parse_refuses(spec, message):
    with pytest.raises(RazorError, match=message) as caught:
        parse_codec(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shape", [(16, 8, 40), (16, 3, 7), (24, 5, 1), (8, 0, 3), (0, 8, 3)], ids=str
)
@pytest.mark.parametrize(
    "codec",
    [
        Mask(),
        Dense("fp16"),
        TopK(0.5),
        Uniform(3, axis=-2, preserves="zeros"),
        Uniform(4, 128, axis=-2, preserves="signs"),
        Uniform(6, axis=-1),
    ],
    ids=str,
)
def test_chunks_make_the_whole(codec, shape, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(shape)
    x = x > 0 if codec == Mask() else x
    whole, value = roundtrip(codec, x)
    monkeypatch.setattr("razorlight.codecs.operators._CHUNK_ENTRIES", 100)
    with torch.autocast("cpu", torch.float16):  # which does not join bfloat16
        chunks = encode(codec, x)
        joined = decode(codec, chunks, x.shape, x.dtype)
    for part, expected in zip(chunks, whole, strict=True):
        assert torch.equal(part, expected)
    assert torch.equal(joined, value)
