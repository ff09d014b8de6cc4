"""The gradients of norms that kernels compute from codes equal those of the torch code."""

import copy
import math

import pytest
import torch
from small_networks import tiny_vit
from torch import nn

from razorlight import Uniform, razor_
from razorlight.codecs import kernels as codec_kernels
from razorlight.functional.batch_norm import _BatchNorm
from razorlight.functional.norm import _LayerNorm, _RMSNorm
from razorlight.functional.normalise import BackwardInputs, Reading
from razorlight.records import as_stored_layout, encoded_record

pytest.importorskip("triton")
from razorlight.codecs.kernels import Codes, norm, uniform

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinity and NaN

ALL = (True, True, True)
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-9}
LAST = torch.channels_last


def gradients(kind, x, codec, weight, needs=ALL, dtype=torch.float32, centre=None, rstd=None):
    """The gradients by the kernels and by the torch code in float64, of a normalised input."""
    view = as_stored_layout(x, kind.channels)
    stored = codec.encode(view)
    record = encoded_record(stored, x, codec, torch.float32, kind.channels)
    reader = record.reader
    codes = Codes(codec, stored, view.shape, reader.channels_last)
    assert uniform.serves(codec, view.shape)
    grad = torch.randn_like(x).to(dtype)
    mean = torch.zeros(()) if centre is None else -centre
    given = BackwardInputs(grad, weight, None, mean, rstd, needs)
    ours = kind.backward_of_codes(norm, codes, given)
    reading = Reading(record.read().double(), mean.double(), rstd.double(), True)
    wide = None if weight is None else weight.double()
    bias = torch.zeros(x.shape[kind.channels] if weight is None else weight.shape).double()
    right = kind.backward(grad.double(), reading, wide, bias, [*needs])
    assert ours[0] is None or ours[0].dtype == dtype
    return ours, right


def assert_near(ours, right, rounding=ROUNDING[torch.float32]):
    assert [one is None for one in ours] == [one is None for one in right]
    for a, b in zip(ours, right, strict=True):
        if b is not None:
            assert a.shape == b.shape
            torch.testing.assert_close(a.double(), b, rtol=0, atol=rounding * float(b.abs().max()))


CODECS = [
    Uniform(4, axis=-2),
    Uniform(5, 64, axis=-2, preserves="signs"),
    Uniform(11, axis=-2, token_scale=True, companded=True),
    Uniform(3, 32, axis=-1, preserves="zeros"),
    Uniform(4),
]
TOKENS = [(2, 36, 40), (16, 3, 48), (8, 1, 64), (1, 70, 16), (33, 136), (2, 5, 8, 24), (8, 5)]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("kind", [_LayerNorm, _RMSNorm])
def test_rows_of_tokens(kind, codec):
    check_rows(kind, codec)


def check_rows(kind, codec):
    torch.manual_seed(0)
    served = [
        shape
        for shape in TOKENS
        if uniform.serves(codec, as_stored_layout(torch.empty(shape), -1).shape)
    ]
    assert len(served) > 3
    for shape in served:
        x, rstd = torch.randn(shape), torch.rand(*shape[:-1], 1) + 0.1
        needs = (True, True, kind is _LayerNorm)
        made = gradients(kind(shape[-1:], 1e-5), x, codec, torch.randn(shape[-1]), needs, rstd=rstd)
        assert_near(*made)


def test_rows_lie_in_all_ways():
    ways = {
        "in places": (Uniform(4, axis=-2), (2, 36, 40), 40),
        "as lines": (Uniform(4, axis=-1), (2, 36, 40), 40),
        "anywhere": (Uniform(4), (2, 36, 40), 40),
    }
    for way, (codec, shape, width) in ways.items():
        assert norm._how_rows_lie(codec.layout(shape), width)[0] == way


@pytest.mark.parametrize("shape", [(8, 40), (4, 8, 40)])
def test_rows_of_several_dims(shape):
    torch.manual_seed(0)
    kind, x = _LayerNorm(shape, 1e-5), torch.randn(3, 4, 8, 40)
    rstd = torch.rand(3, *(4, 1, 1) if len(shape) == 2 else (1, 1, 1)) + 0.1
    assert_near(*gradients(kind, x, Uniform(4, axis=-2), torch.randn(shape), rstd=rstd))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", [_LayerNorm, _RMSNorm, _BatchNorm])
def test_dtypes(kind, dtype):
    torch.manual_seed(0)
    is_batch = kind is _BatchNorm
    x = torch.randn(4, 10, 40)
    rstd = torch.rand(10, 1).sub_(0.5) if is_batch else torch.rand(4, 10, 1)
    made = kind((None, None), 0.1, 1e-5) if is_batch else kind((40,), 1e-5)
    needs = (True, True, kind is not _RMSNorm)
    weight = torch.randn(10 if is_batch else 40).to(dtype)
    ours, right = gradients(made, x, Uniform(4, axis=-2), weight, needs, dtype, rstd=rstd)
    assert_near(ours[:1], right[:1], ROUNDING[dtype])
    assert_near(ours[1:], right[1:])  # in float32, until autograd casts them


NEEDS = [  # of input, weight and bias; and whether there is a weight
    ((True, False, False), True),
    ((True, False, False), False),
    ((False, True, False), True),
    ((True, True, False), True),
    ((True, False, True), False),
    ((False, True, True), True),
]


@pytest.mark.parametrize(("needs", "is_scaled"), NEEDS, ids=str)
def test_what_is_needed(needs, is_scaled):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 12, 40), torch.randn(40) if is_scaled else None
    codec, rows = Uniform(4, axis=-1), torch.rand(2, 12, 1)
    assert_near(*gradients(_LayerNorm((40,), 1e-5), x, codec, weight, needs, rstd=rows))
    kind, channels = _BatchNorm((None, None), 0.1, 1e-5), torch.rand(12, 1).sub_(0.5)
    weight = torch.randn(12) if is_scaled else None
    assert_near(*gradients(kind, x, Uniform(4, axis=-2), weight, needs, rstd=channels))


MAPS = [
    ((4, 8, 7, 9), torch.contiguous_format),
    ((4, 8, 7, 9), LAST),
    ((16, 3, 8, 8), LAST),
    ((8, 8, 4, 4), torch.contiguous_format),  # groups of several samples
    ((8, 8, 4, 4), LAST),
    ((8, 8, 2, 3), torch.contiguous_format),  # in the order of memory
    ((2, 260, 4, 4), LAST),  # channels of two blocks
    ((2, 4, 20, 19), torch.contiguous_format),  # places of two blocks
    ((16, 2, 4, 4), torch.contiguous_format),  # lines longer than a part of a row of codes
    ((40, 24), torch.contiguous_format),
    ((3, 8, 50), torch.contiguous_format),
    ((16, 64, 1, 1), torch.contiguous_format),
    ((2, 8, 3, 4, 5), torch.contiguous_format),
]


@pytest.mark.parametrize(("shape", "form"), MAPS, ids=str)
def test_channels(shape, form):
    check_channels(shape, form, is_centred=True)


def check_channels(shape, form, is_centred):
    torch.manual_seed(0)
    channels = shape[1]
    kind, of_channels = _BatchNorm((None, None), 0.1, 1e-5), (channels, *(1,) * (len(shape) - 2))
    x = torch.randn(shape).contiguous(memory_format=form)
    rstd, weight = torch.rand(of_channels) - 0.5, torch.randn(channels)
    rstd[0], weight[1] = 0, 0
    centre = torch.randn(of_channels) if is_centred else None
    served = []
    for codec in (CODECS[1], Uniform(4)):
        view = as_stored_layout(x, 1)
        if uniform.serves(codec, view.shape):
            served.append(codec)
            assert_near(*gradients(kind, x, codec, weight, centre=centre, rstd=rstd))
    assert served


def test_channels_without_centres():
    check_channels(*MAPS[0], is_centred=False)
    check_channels(*MAPS[1], is_centred=False)


def test_several_programs_share_rows_and_channels(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(norm, "_multiprocessors", lambda device: 3)
    monkeypatch.setattr(norm, "_TILE", 512)
    check_rows(_LayerNorm, CODECS[0])
    check_channels(*MAPS[0], is_centred=True)
    check_channels(*MAPS[1], is_centred=True)


def test_a_row_with_nan_spoils_what_it_spoils_in_torch():
    torch.manual_seed(0)
    x, rstd = torch.randn(2, 40, 48), torch.rand(2, 40, 1)
    x[1, 3] = math.nan
    rstd[1, 3] = math.nan
    codec = Uniform(4, 32, axis=-1)  # a row is two groups
    ours, right = gradients(_LayerNorm((48,), 1e-5), x, codec, torch.randn(48), rstd=rstd)
    assert ours[0][1, 3].isnan().all()
    assert ours[0].isnan().sum() == 48
    assert ours[1].isnan().all()
    assert_near(ours[2:], right[2:])
    keep = right[0].isfinite()
    assert_near([ours[0][keep]], [right[0][keep]])


def test_what_is_left_to_torch():
    x, codec = torch.randn(2, 40, 48), Uniform(4, axis=-2)
    codes = Codes(codec, codec.encode(x), x.shape, False)
    rstd = torch.rand(2, 40, 1)
    given = codes, x, None, rstd
    assert norm.row_gradients(*given, (True, False, False), True) is not None
    assert norm.row_gradients(*given, (False, False, True), True) is None
    assert norm.row_gradients(codes, x.double(), *given[2:], ALL, True) is None
    assert norm.row_gradients(*given[:3], rstd.double(), ALL, True) is None
    x = torch.randn(1, 32, 8200)
    codes = Codes(codec, codec.encode(x), x.shape, False)
    assert norm.row_gradients(codes, x, None, torch.rand(1, 32, 1), ALL, True) is None
    assert codec_kernels.norm_kernels_for(codes) is None  # of the CPU


class Block(nn.Module):
    """The basic block of a ResNet."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(width), nn.ReLU()

    def forward(self, x):
        out = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(out)) + x)


def vit():
    return tiny_vit(48, 8, width=64), torch.randn(2, 3, 48, 48)


def basic_block():
    block = Block(48)
    with torch.no_grad():
        block.bn1.weight.uniform_(-1, 1)
        block.bn1.bias.uniform_(-1, 1)
    return block, torch.randn(2, 48, 6, 6)


def basic_block_in_channels_last():
    block, x = basic_block()
    return block, x.contiguous(memory_format=LAST)


def frozen_products():
    """Nothing reads the normalised input but the norms."""
    net = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 48), nn.RMSNorm(48), nn.Linear(48, 8))
    for i in (1, 3):
        net[i].requires_grad_(False)
    return net, torch.randn(4, 33, 48)


def instance_and_group():
    return nn.Sequential(nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(2, 8)), torch.randn(
        4, 8, 12, 12
    )


NETWORKS = {  # and the kernels that their norms launch by ``balanced``
    vit: {"row_gradients"},
    basic_block: {"channel_gradients"},
    basic_block_in_channels_last: {"channel_gradients"},
    frozen_products: {"row_gradients"},
    instance_and_group: set(),
}


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_a_network_trains_with_the_gradients_of_the_torch_code(make, monkeypatch):
    torch.manual_seed(0)
    dense, x = make()
    found = []
    for launches in (False, True):
        monkeypatch.setattr(codec_kernels, "can_launch", lambda like, runs=launches: runs)
        calls = note_calls(monkeypatch)
        model, leaf = copy.deepcopy(dense), x.clone().requires_grad_()
        razor_(model, "balanced", include=["*"])
        model(leaf).square().mean().backward()
        found.append([leaf.grad, *(p.grad for p in model.parameters() if p.requires_grad)])
        assert (calls == NETWORKS[make]) if launches else not calls
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=4e-6 * float(b.abs().max()))


def note_calls(monkeypatch):
    """The names of the functions that return gradients, as they are called."""
    calls = set()

    def noted(name, function):
        def call(*args):
            result = function(*args)
            if result is not None:
                calls.add(name)
            return result

        return call

    for name in ("row_gradients", "channel_gradients"):
        monkeypatch.setattr(norm, name, noted(name, getattr(norm, name)))
    return calls
