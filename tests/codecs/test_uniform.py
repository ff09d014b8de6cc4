import pytest
import torch

from razorlight import RazorError, Uniform
from razorlight.codecs import decode, encode, parse_codec

BITS = (2, 3, 4, 5, 6, 8, 11)


def roundtrip(codec, x):
    stored = codec.encode(x)
    return stored, codec.decode(*stored, shape=x.shape, dtype=x.dtype)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("axis", "shape"),
    [
        *((None, shape) for shape in [(4, 70, 33), (2, 300), (9,), (), (0, 5), (3, 8, 7, 7)]),
        *((-1, shape) for shape in [(4, 70, 33), (9,), (0, 5), (3, 8, 7, 7)]),
        *((-2, shape) for shape in [(4, 70, 33), (2, 300), (0, 5), (0, 64, 0), (3, 8, 7, 7)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_within_half_a_step(bits, axis, shape, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype)
    codec = Uniform(bits, group=32, axis=axis)
    stored, restored = roundtrip(codec, x)
    assert restored.shape == x.shape
    assert restored.dtype == dtype
    assert sum(t.numel() * t.itemsize * 8 for t in stored) == codec.nbits(x.shape, dtype)
    if x.numel():
        # half a step of the widest group, and bfloat16's rounding of its ends
        span = (x.max() - x.min()).float()
        bound = 0.5 * span / (2**bits - 1) + 2**-7 * x.abs().max().float()
        assert (restored.float() - x.float()).abs().max() <= bound


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shift", [0.0, -1.5, 30.0])
def test_signs_are_kept(bits, shift):
    torch.manual_seed(0)
    x = torch.randn(4, 8, 64, 1) + shift
    x[0, 0, :8, 0] = torch.tensor([1e-6, -1e-6, 1e-3, -1e-3, 1e-20, -1e-20, 0.1, 0.0])
    codec = Uniform(bits, axis=-2, preserves="signs")
    stored, restored = roundtrip(codec, x)
    assert torch.equal(restored > 0, x > 0)
    assert sum(t.numel() * t.itemsize * 8 for t in stored) == codec.nbits(x.shape, x.dtype)
    # negative entries in steps twice as wide as the positive ones
    bound = 1.02 * (x.max() - x.min()) / (2**bits - 1) + 2**-7 * x.abs().max()
    assert (restored - x).abs().max() <= bound


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sign", [1, -1])
def test_signs_of_groups_far_from_zero_are_kept(bits, sign):
    x = sign * torch.logspace(-3, 3, 4096).view(-1, 1).repeat(1, 32)  # each group is constant
    _, restored = roundtrip(Uniform(bits, preserves="signs"), x)
    assert torch.equal(restored > 0, x > 0)
    assert ((restored - x).abs() <= 2**-6 * x.abs()).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_zeros_of_what_is_rectified_are_kept(bits, dtype):
    torch.manual_seed(0)
    x = torch.randn(4, 300).to(dtype)
    x[0, :3] = torch.tensor([1e-6, 0.0, -1e-6])
    x[1] = -1
    codec = Uniform(bits, axis=-1, preserves="zeros")
    stored, restored = roundtrip(codec, x)
    assert torch.equal(restored > 0, x > 0)
    assert (restored >= 0).all()
    assert sum(t.numel() * t.itemsize * 8 for t in stored) == codec.nbits(x.shape, dtype)
    error = (restored.float() - x.float().clamp(min=0)).abs().max()
    assert error <= 0.51 * x.max().float() / (2**bits - 1) + 2**-7 * x.max().float()


@pytest.mark.parametrize("shape", [(8, 16, 49, 1), (12, 16, 16, 1), (8, 65, 24), (6, 20, 24)])
@pytest.mark.parametrize("preserves", ["ends", "signs", "zeros"])
@pytest.mark.parametrize("token_scale", [False, True])
def test_short_lines_go_together_and_chunks_join(shape, preserves, token_scale):
    x = torch.randn(shape)
    codec = Uniform(4, axis=-2, preserves=preserves, token_scale=token_scale)
    together = codec.chunk_alignment(shape)
    whole = codec.encode(x)
    if together is not None:
        chunks = [codec.encode(part) for part in x.split(together)]
        joined = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(whole, joined, strict=True))
    # about a quarter of a bit for the ends, where those of short lines would take one or two
    assert codec.nbits(shape, x.dtype) < 5 * x.numel()


@pytest.mark.parametrize("axis", [0, -2])
def test_groups_over_samples_do_not_come_in_chunks(axis):
    x = torch.randn(1024, 2048)  # more than is encoded at once where samples are on their own
    codec = Uniform(8, axis=axis)
    restored = decode(codec, encode(codec, x), x.shape, x.dtype)
    torch.testing.assert_close(restored, x, rtol=0, atol=0.05)


def test_groups_run_along_the_axis():
    scales = torch.tensor([1e-3, 1.0, 1e3])
    channels = torch.randn(2, 64, 3) * scales  # channels of very different size
    error = (roundtrip(Uniform(4, 64, axis=-2), channels)[1] - channels).abs().amax((0, 1))
    assert (error < 0.3 * scales).all()
    mixed = (roundtrip(Uniform(4, 64, axis=-1), channels)[1] - channels).abs().amax((0, 1))
    assert mixed[0] > 0.3 * scales[0]


@pytest.mark.parametrize("preserves", ["ends", "signs", "zeros"])
@pytest.mark.parametrize("giant", [-999.0, 1e6, 1e12])
@pytest.mark.parametrize("share", [0.02, 0.7])
def test_giant_tokens_leave_others_their_step(preserves, giant, share):
    torch.manual_seed(0)
    x = torch.randn(4, 100, 64)
    giants = torch.rand(4, 100) < share
    x[giants] *= giant
    codec = Uniform(4, axis=-2, preserves=preserves, token_scale=True)
    stored, restored = roundtrip(codec, x)
    true = x.clamp(min=0) if preserves == "zeros" else x
    for tokens in (giants, ~giants):
        error = (restored - true)[tokens].norm() / true[tokens].norm()
        assert error < {"ends": 0.12, "signs": 0.2, "zeros": 0.1}[preserves]
    if preserves != "ends":
        assert torch.equal(restored > 0, x > 0)
    assert sum(t.numel() * t.itemsize * 8 for t in stored) == codec.nbits(x.shape, x.dtype)


@pytest.mark.parametrize("preserves", ["ends", "signs", "zeros"])
@pytest.mark.parametrize("token_scale", [False, True])
def test_companded_small_entries_have_finer_steps(preserves, token_scale):
    torch.manual_seed(0)
    x = torch.randn(4, 64, 64)
    small = torch.rand_like(x) < 0.3
    x[small] *= 1e-3
    even = Uniform(8, axis=-2, preserves=preserves, token_scale=token_scale)
    bent = Uniform(8, axis=-2, preserves=preserves, token_scale=token_scale, companded=True)
    assert bent.nbits(x.shape, x.dtype) == even.nbits(x.shape, x.dtype)
    true = x.clamp(min=0) if preserves == "zeros" else x
    errors = [(roundtrip(codec, x)[1] - true).abs() for codec in (even, bent)]
    assert errors[1][small].mean() < 0.05 * errors[0][small].mean()
    assert errors[1].mean() < 1.3 * errors[0].mean()
    if preserves != "ends":
        assert torch.equal(roundtrip(bent, x)[1] > 0, x > 0)


def test_a_scale_takes_a_byte_and_is_not_worth_it_for_narrow_tokens():
    plain, scaled = Uniform(4, axis=-2), Uniform(4, axis=-2, token_scale=True)
    wide, narrow = (8, 100, 64), (8, 100, 31)
    assert scaled.nbits(wide, torch.float32) == plain.nbits(wide, torch.float32) + 8 * 800
    assert scaled.nbits(narrow, torch.float32) == plain.nbits(narrow, torch.float32)
    # of maps, channels first, a token is a place
    maps = (8, 64, 100, 1)
    assert scaled.nbits(maps, torch.float32) == plain.nbits(maps, torch.float32) + 8 * 800


def test_tokens_of_nothing_and_of_everything():
    x = torch.randn(2, 100, 64)
    x[:, 3], x[:, 4], x[:, 5] = 0.0, x[:, 4] * 1e-30, x[:, 5] * 1e15
    restored = roundtrip(Uniform(8, axis=-2, token_scale=True), x)[1]
    assert (restored[:, 3].abs() < 1e-15).all()
    assert restored.isfinite().all()
    for spoilt in (torch.inf, -torch.inf, torch.nan):  # a run that diverges is seen to
        x[0, 7, 3] = spoilt
        restored = roundtrip(Uniform(8, axis=-2, token_scale=True), x)[1]
        assert restored[0, :, 3].isnan().all()


def test_size():
    # four bits a code, and two bfloat16 for each 128
    assert Uniform(4, 128).nbits((8, 256), torch.float32) == 8 * 256 * 4 + 16 * 32
    # small maps: groups go on across rows and channels, unless an axis is given
    assert Uniform(4, 128).nbits((1, 16, 8, 49), torch.float32) == 6272 * 4 + 49 * 32
    assert Uniform(4, 128, axis=-1).nbits((1, 16, 8, 49), torch.float32) == 6272 * 4 + 128 * 32


def test_stochastic_rounding_is_unbiased():
    torch.manual_seed(0)
    x = torch.rand(1, 128)
    mean = torch.stack([roundtrip(Uniform(2, stochastic=True), x)[1] for _ in range(2000)]).mean(0)
    assert (mean - x).abs().max() < 0.03
    assert (roundtrip(Uniform(2), x)[1] - x).abs().max() > 0.1


def test_constant_and_large_groups():
    constant = torch.full((2, 128), 3.0)
    restored = roundtrip(Uniform(4), constant)[1]  # its ends are rounded to bfloat16
    torch.testing.assert_close(restored, constant, rtol=2**-8 / 15, atol=0)
    large = torch.randn(2, 128) * 1e30
    torch.testing.assert_close(roundtrip(Uniform(8), large)[1], large, rtol=0, atol=4e28)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_divergence_is_seen(value):
    x = torch.randn(2, 128)
    x[0, 5] = value
    restored = roundtrip(Uniform(4), x)[1]
    assert restored[0].isnan().all()
    assert restored[1].isfinite().all()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("kept", ["ends", "signs", "zeros"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_spoilt_group_spoils_no_other(bits, kept, value):
    """Entries of several groups share a byte."""
    torch.manual_seed(0)
    codec, x = Uniform(bits, 2, axis=-1, preserves=kept), torch.randn(64)
    whole = roundtrip(codec, x)[1]
    x[7] = value
    restored = roundtrip(codec, x)[1]
    if kept != "zeros" or value != -torch.inf:  # which a rectifier takes for zero
        assert not restored[6:8].isfinite().any()
    others = torch.arange(64) // 2 != 3
    assert torch.equal(restored[others], whole[others])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"bits": 7}, "2, 3, 4, 5, 6, 8, 11"),
        ({"group": 0}, "at least 1"),
        ({"preserves": "all"}, "ends, signs or zeros"),
        ({"preserves": "zeros", "stochastic": True}, "does not keep zeros"),
        ({"token_scale": True}, "needs the axis"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(RazorError, match=message):
        parse_codec({"codec": "uniform", **spec})


def test_an_axis_that_is_not_there():
    with pytest.raises(RazorError, match=r"shape \(4, 8\) has no axis -3"):
        Uniform(axis=-3).encode(torch.randn(4, 8))
