"""The Triton kernels of Mask and Slope give the bits of the torch code, in one launch each."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from razorlight import Mask, Slope, Uniform, razor_
from razorlight.codecs import Step, operators
from razorlight.codecs import kernels as codec_kernels
from razorlight.functional.activation import times_slope

pytest.importorskip("triton")
from razorlight.codecs.kernels import entrywise

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity and NaN

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SHAPES = [(), (9,), (300,), (4, 7, 5, 3), (8, 5), (16, 3, 7, 7), (100, 8), (3, 4096)]
CURVES = ("gelu", "gelu_tanh", "silu", "hardswish")
SLOPES = [Slope(bits, curve) for curve in CURVES for bits in (2, 3, 4)]


def assert_same(ours, torchs):
    for a, b in zip(ours, torchs, strict=True):
        assert a.shape == b.shape
        assert a.is_contiguous()
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def compare(codec, x, dtype):
    """Compare both encodings of ``x``, and both decodings to ``dtype``."""
    stored = codec.encode(x)
    assert_same(entrywise.encode(codec, x), stored)
    ours = entrywise.decode(codec, *stored, shape=x.shape, dtype=dtype)
    assert_same([ours], [codec.decode(*stored, shape=x.shape, dtype=dtype)])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks(shape):
    torch.manual_seed(0)
    compare(Mask(), torch.rand(shape) > 0.5, torch.bool)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8, torch.int64], ids=str)
def test_a_mask_of_numbers_from_strided_booleans(dtype):
    torch.manual_seed(0)
    compare(Mask(), (torch.rand(6, 4, 10) > 0.5).transpose(1, 2), dtype)


@pytest.mark.parametrize(
    ("codec", "dtype"),
    [
        *((codec, torch.float32) for codec in SLOPES),
        *((Slope(3, "silu"), dtype) for dtype in FLOATS[1:]),
    ],
    ids=str,
)
def test_slopes(codec, dtype):
    torch.manual_seed(0)
    cells = torch.arange(-160, 160, dtype=dtype) / 16
    below, tiny = cells.nextafter(cells - 1), torch.finfo(dtype).tiny
    below = below.where(below.abs() >= tiny, -tiny)  # the interpreter flushes bfloat16 to zero
    strange = [0.0, -0.0, tiny, -tiny, torch.nan, torch.inf, -torch.inf, torch.finfo(dtype).max]
    drawn = torch.randn(13 * 640).to(dtype) * 3
    x = torch.cat([drawn, cells, below, torch.tensor(strange, dtype=dtype)])
    compare(codec, x, dtype)
    compare(codec, drawn.view(13, 640).T, dtype)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_odd_numbers_of_slopes(bits):
    """Planes of 2 and 4 bits whose parts are not as long as those of 1 bit are left to torch."""
    torch.manual_seed(0)
    served = [n for n in range(1, 50) if entrywise.serves(Slope(bits), torch.Size([n]))]
    assert {8, 15, 16, 23, 47} <= {*served}
    assert 9 not in served
    for n in served[:4]:
        compare(Slope(bits), torch.randn(n), torch.float32)


def test_what_is_left_to_torch(monkeypatch):
    @dataclass(frozen=True)
    class Other(Mask):
        """It may store something else."""

    def served(codec, *shape):
        return codec_kernels.kernels_for(codec, torch.Size(shape), torch.empty(0)) is not None

    assert not served(Mask(), 8)  # on a CPU
    monkeypatch.setattr(codec_kernels, "can_launch", lambda like: True)
    assert served(Mask(), 8)
    assert served(Slope(), 8)
    assert not served(Other(), 8)
    assert not served(Mask(), 0, 8)
    assert not served(Slope(), 0, 8)
    assert not served(Mask(), 2**31)
    assert not entrywise.serves_norm(Slope(), *torch.ones(3, 8))


@pytest.mark.parametrize("codec", [Mask(), Slope(3)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS[:3], ids=str)
@pytest.mark.parametrize("like", ["whole", "expanded", "strided"])
def test_times(codec, dtype, like):
    torch.manual_seed(0)
    shape = torch.Size([4, 24, 40])
    value = torch.randn(shape)
    stored = codec.encode(value > 0 if codec == Mask() else value)
    whole = torch.randn(4, 24, 80).to(dtype)
    grad = {"whole": whole[..., :40].contiguous(), "strided": whole[..., ::2]}.get(
        like, whole[:1, :, :1].expand(shape)
    )
    steps = [times_slope.step(grad)]
    ours = entrywise.decode(codec, *stored, shape=shape, dtype=dtype, steps=steps)
    right = times_slope(grad, codec.decode(*stored, shape=shape, dtype=dtype))
    # the interpreter cuts digits off where a GPU rounds
    tolerance = 2**-7 if dtype == torch.bfloat16 else 0
    torch.testing.assert_close(ours, right, rtol=tolerance, atol=0)


def test_a_cast_follows():
    codec, x = Slope(4, "silu"), torch.randn(4, 24)
    steps = Step("times", (x,), None), Step("cast", (), torch.float16)
    stored, how = codec.encode(x), {"shape": x.shape, "dtype": torch.float32}
    ours = entrywise.decode(codec, *stored, shape=x.shape, dtype=torch.float16, steps=steps)
    right = (codec.decode(*stored, **how) * x).half()
    torch.testing.assert_close(ours, right, rtol=2**-10, atol=0)  # the slope is rounded too


@pytest.mark.parametrize("codec", [Slope(), Uniform(4)], ids=str)
def test_steps_in_float64_are_left_to_torch(codec, monkeypatch):
    """The kernels compute steps in float32."""
    monkeypatch.setattr(codec_kernels, "can_launch", lambda like: True)
    x = torch.randn(4, 24)
    given, steps = (codec, codec.encode(x), x.shape), [Step("times", (x,), None)]
    assert operators.decode_then(*given, torch.float32, steps) is not None
    assert operators.decode_then(*given, torch.float64, steps) is None
    steps.append(Step("cast", (), torch.float64))
    assert operators.decode_then(*given, torch.float32, steps) is None


def test_tables_are_sent_once(monkeypatch):
    codec, x = Slope(3, "hardswish"), torch.randn(16)
    first = entrywise.encode(codec, x)
    entrywise.decode(codec, *first, shape=x.shape, dtype=x.dtype)
    monkeypatch.delattr(Slope, "codes_of_cells")
    monkeypatch.delattr(Slope, "levels")
    assert_same(entrywise.encode(codec, x), first)
    entrywise.decode(codec, *first, shape=x.shape, dtype=x.dtype)


def convolutions(activation):
    parts = [nn.Conv2d(3, 8, 3, padding=1), activation, nn.Conv2d(8, 4, 1), nn.Dropout(0.3)]
    return nn.Sequential(*parts), torch.randn(4, 3, 9, 10)


def mlp(activation):
    return nn.Sequential(nn.Linear(16, 24), activation, nn.Linear(24, 8)), torch.randn(4, 5, 16)


# by recipe paper, no product runs again in place of a stored slope
EXACT, SLOPE = {"recipe": "exact"}, {"recipe": "paper", "overrides": {"1": Slope(3)}}
NETWORKS = {
    "relu6": (*convolutions(nn.ReLU6()), EXACT),
    "hardtanh": (*mlp(nn.Hardtanh()), EXACT),
    "hardsigmoid": (*mlp(nn.Hardsigmoid()), EXACT),
    "leaky relu": (*convolutions(nn.LeakyReLU()), EXACT),
    "gelu": (*mlp(nn.GELU()), SLOPE),
    "silu": (*convolutions(nn.SiLU()), SLOPE),
}
IN_TORCH = {"hardsigmoid", "leaky relu"}  # the kernels do not know their gradients


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, form, monkeypatch):
    dense, x, recipe = NETWORKS[name]
    if form == torch.channels_last and x.ndim < 4:
        pytest.skip("tokens have one memory format")
    gradients = []
    for launches in (False, True):
        names = note_steps(monkeypatch, launches)
        model, leaf = copy.deepcopy(dense), x.clone(memory_format=form).requires_grad_()
        razor_(model, include=["*"], **recipe)
        torch.manual_seed(0)
        model(leaf).square().mean().backward()
        gradients.append([leaf.grad, *(p.grad for p in model.parameters())])
        assert bool(names) == launches
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert (("times",) in names) == (name not in IN_TORCH)


def note_steps(monkeypatch, launches):
    """Let kernels run, or not; return a list of the names of the steps of each decoding."""
    monkeypatch.setattr(codec_kernels, "can_launch", lambda like: launches)
    names, decode = [], entrywise.decode

    def noted(*args, steps=(), **options):
        names.append(tuple(step.name for step in steps))
        return decode(*args, steps=steps, **options)

    monkeypatch.setattr(entrywise, "decode", noted)
    return names


def test_a_compiled_step_as_on_a_gpu(monkeypatch):
    """In a compiled step one operator decodes and multiplies."""
    monkeypatch.setattr(operators, "_WITH_KERNELS", {"cpu"})
    applied = []

    def apply(value, steps, dtype):
        applied.append([step.name for step in steps])
        return in_torch(value, steps, dtype)

    in_torch = operators.apply
    monkeypatch.setattr(operators, "apply", apply)
    dense = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 8), nn.ReLU6())
    gradients, x = [], torch.randn(4, 5, 16)
    for compiles in (False, True):
        model = copy.deepcopy(dense)
        razor_(model, include=["1", "3"], **SLOPE)
        if compiles:
            applied.clear()
            model.compile(fullgraph=True, backend="aot_eager")
        model(x).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert_same(*gradients)
    assert ["times"] in applied
