import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from razorlight.codecs.slope import Slope
from razorlight.codecs.slope_tables import STEPS
from razorlight.errors import RazorError

FUNCTIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SHAPES = [(4, 7, 5, 3), (300,), (9,), (), (1, 1), (0, 5)]
CODES = [Slope(bits, function) for function in FUNCTIONS for bits in (2, 3, 4)]


def roundtrip(codec, x):
    stored = codec.encode(x)
    return stored, codec.decode(*stored, shape=x.shape, dtype=x.dtype)


def true_slope(function, x):
    x = x.clone().requires_grad_()
    FUNCTIONS[function](x).sum().backward()
    return x.grad


def normal_grid(spread=1.5):
    """Points from -12 to 12, and weights of N(0, spread) there; none falls on an edge."""
    x = torch.linspace(-12, 12, 100_000, dtype=torch.float64)
    weights = torch.exp(-0.5 * (x / spread) ** 2)
    return x, weights / weights.sum()


def rms(error, weights):
    return (error**2 * weights).sum().sqrt().item()


def test_every_function_and_width_has_a_table():
    assert {(codec.function, codec.bits) for codec in CODES} == set(STEPS)
    for (_, bits), (edges, slopes, _) in STEPS.items():
        assert len(slopes) == len(edges) + 1
        assert len(set(slopes)) == 2**bits
        assert list(edges) == sorted(edges)


@pytest.mark.parametrize("codec", CODES, ids=str)
def test_error_is_that_of_the_table(codec):
    x, weights = normal_grid()
    error = rms(roundtrip(codec, x)[1] - true_slope(codec.function, x), weights)
    assert error == pytest.approx(STEPS[codec.function, codec.bits][2], rel=1e-3)


# other inputs than the table was made for: after a BatchNorm, and wider ones
@pytest.mark.parametrize("spread", [1.0, 2.0])
@pytest.mark.parametrize("codec", CODES, ids=str)
def test_error_for_other_spreads(codec, spread):
    x, weights = normal_grid(spread)
    error = rms(roundtrip(codec, x)[1] - true_slope(codec.function, x), weights)
    assert error < 1.25 * STEPS[codec.function, codec.bits][2]


@pytest.mark.parametrize("codec", CODES, ids=str)
def test_better_than_even_intervals(codec):
    x, weights = normal_grid()
    slope = true_slope(codec.function, x)
    errors = []
    for reach in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0):
        edges = torch.linspace(-reach, reach, 2**codec.bits - 1, dtype=x.dtype)
        interval = torch.bucketize(x, edges)
        mass, first = (torch.bincount(interval, w) for w in (weights, weights * slope))
        levels = first / mass
        levels[0], levels[-1] = 0, 1  # as in the table
        errors.append(rms(levels[interval] - slope, weights))
    bound = {2: 1.0, 3: 0.9, 4: 0.85}[codec.bits]
    assert STEPS[codec.function, codec.bits][2] < bound * min(errors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("codec", CODES, ids=str)
def test_the_level_of_the_interval(codec, dtype):
    edges, slopes, _ = (
        torch.tensor(field, dtype=torch.float64) for field in STEPS[codec.function, codec.bits]
    )
    torch.manual_seed(0)
    x = torch.cat([3 * torch.randn(2000, dtype=torch.float64), edges, edges.nextafter(-edges)])
    x = x.to(dtype)
    restored = roundtrip(codec, x)[1]
    expected = slopes[torch.bucketize(x.double(), edges, right=True)].to(dtype)
    assert torch.equal(restored, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_shape_dtype_and_bits(bits, dtype, shape):
    codec = Slope(bits)
    x = torch.randn(shape).to(dtype)
    before = x.clone()
    stored, restored = roundtrip(codec, x)
    assert torch.equal(x, before)
    assert restored.shape == x.shape
    assert restored.dtype == dtype
    assert restored.is_contiguous()
    assert sum(t.numel() * t.itemsize * 8 for t in stored) == codec.nbits(shape, dtype)


def test_size_is_the_bits():
    assert [Slope(bits).nbits((8, 256), torch.float32) for bits in (2, 3, 4)] == [
        8 * 256 * bits for bits in (2, 3, 4)
    ]


def test_strides():
    x = torch.randn(4, 6, 8).permute(2, 0, 1)
    assert torch.equal(roundtrip(Slope(), x)[1], roundtrip(Slope(), x.contiguous())[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("codec", CODES, ids=str)
def test_far_out_the_slope_is_exactly_0_or_1(codec, dtype):
    large = torch.finfo(dtype).max
    x = torch.tensor([-math.inf, -large, -100, -8, 8, 100, large, math.inf], dtype=dtype)
    assert roundtrip(codec, x)[1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_has_a_level_and_stays_by_itself(dtype):
    codec = Slope(3)
    x = torch.randn(64).to(dtype)
    expected = roundtrip(codec, x)[1]
    x[5] = math.nan
    restored = roundtrip(codec, x)[1]
    assert restored[5] in torch.tensor(STEPS["gelu", 3][1], dtype=dtype)
    assert torch.equal(restored[:5], expected[:5])
    assert torch.equal(restored[6:], expected[6:])


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_compiled_whole(bits):
    codec = Slope(bits, "silu")
    x = torch.randn(5, 33)
    compiled = torch.compile(partial(roundtrip, codec), fullgraph=True, backend="aot_eager")
    for ours, eager in zip(compiled(x)[0], roundtrip(codec, x)[0], strict=True):
        assert torch.equal(ours, eager)
    assert torch.equal(compiled(x)[1], roundtrip(codec, x)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 5}, "bits must be one of .*2, 3, 4.*got 5"),
        ({"function": "relu"}, "function must be one of .*gelu_tanh.*got 'relu'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RazorError, match=message) as caught:
        Slope(**arguments)
    assert "\n" not in str(caught.value)
