"""What a step is taken to move and to cost, on programs that can be counted by hand."""

import json
import sys

import pytest
import roofline
import torch
from networks import Trainee, build
from step_trace import Access, Call, StepTrace, fused, total_bytes
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from traced_step import trace_step

from razorlight import RazorError, Uniform, razor_
from razorlight.memory import measure_step


@pytest.fixture
def trace():
    with FakeTensorMode():
        yield StepTrace()


def moved(trace):
    """By call: its operator, and the bytes that it reads and writes."""
    return [
        (
            call.name.removeprefix("aten."),
            *(sum(a.size for a in c) for c in (call.reads, call.writes)),
        )
        for call in trace.calls
    ]


def test_every_operator_reads_its_inputs_and_writes_its_outputs(trace):
    x, row, out = torch.empty(4, 8), torch.empty(8), torch.empty(4, 8)
    with trace:
        y = x.relu()  # 4 * 8 entries of 4 bytes
        y = y.view(8, 4).t().detach()  # views
        x.new_empty(100)  # no kernel
        z = x + row.expand(4, 8)  # whose 8 entries are read once
        z.mul_(2)
        z.zero_()  # which is not read
        out.copy_(x.half())
        torch.add(x, x, out=out)  # which is read once
    assert moved(trace) == [
        ("relu", 128, 128),
        ("add", 128 + 32, 128),
        ("mul_", 128, 128),
        ("zero_", 0, 128),
        ("_to_copy", 128, 64),
        ("copy_", 64, 128),
        ("add", 128 + 128, 128),
    ]
    assert trace.calls[-1].bytes == 128 + 128
    assert not any(call.flops for call in trace.calls)


def test_peak_is_the_most_that_is_alive(trace):
    x = torch.empty(256)
    trace.memory.track(x)
    with trace:
        y = x + 1
        y = y + 1  # three are alive: x, the old y and the new one
        del y
        x.double().sum()
    assert trace.memory.peak == 1024 + 2048 + 8


def test_products_of_a_linear(trace):
    layer, x = nn.Linear(8, 16), torch.empty(4, 8, requires_grad=True)
    with trace:
        layer(x).sum().backward()
    once = 2 * 4 * 8 * 16
    assert [call.flops for call in trace.calls if call.flops] == [once] * 3


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 8])
def test_products_of_a_convolution(trace, layer, groups):
    x = torch.empty(2, 8, 5, 5, requires_grad=True)
    with trace:
        layer(8, 16, 3, padding=1, groups=groups)(x).sum().backward()
    once = 2 * (2 * 5 * 5) * 16 * 8 // groups * 9
    assert [call.flops for call in trace.calls if call.flops] == [once, 2 * once]


def test_a_norm_reads_twice_where_it_needs_sums_first(trace):
    x = torch.empty(2, 3, 4, requires_grad=True)
    with trace:
        nn.BatchNorm1d(3)(x).exp().sum().backward()
    again = {c.name: total_bytes(c.read_again) for c in trace.calls if c.read_again}
    assert again == {"aten.native_batch_norm": 96, "aten.native_batch_norm_backward": 2 * 96}


def test_time_is_the_longest_of_three():
    gpu = roofline.Gpu(tflops=2, bandwidth=3)
    moves = (Access(0, 0, 3_000_000, 3_000_000),)
    product, copy = Call("mm", (), (), flops=8_000_000_000), Call("copy", moves, moves)
    three = Call("three", (), (), launches=3)
    assert gpu.seconds([product]) == pytest.approx(4e-3)
    assert gpu.seconds([copy]) == pytest.approx(2e-3)
    assert gpu.seconds([three]) == pytest.approx(15e-6)
    assert gpu.seconds([product, copy, three]) == pytest.approx(6.015e-3)


def test_a_compiler_joins_what_lies_between_products(trace):
    x, weight = torch.empty(4, 8), torch.empty(8, 2)
    with trace:
        y = x.relu() + x
        out = (y.exp() @ weight).neg().exp()
        y.sin()  # nobody reads it
    launched = fused(trace.calls, trace.alive())
    assert [call.name for call in launched] == ["chain", "aten.mm", "chain"]
    # x is read; exp(y) is written, and y, which is read after the product and is alive
    first, _, last = launched
    assert first.bytes == 128 + 2 * 128
    assert last.bytes == 32 + 128 + out.nbytes


def test_nobody_looks_into_a_codec(trace):
    codec, x = Uniform(bits=4, group=16), torch.empty(64, 64)
    one_by_one = trace.opaque(Uniform.encode)
    with trace:
        (x + 1) * 2
        one_by_one(codec, x)
        (x + 1) * 2
    inside = [call for call in trace.calls if call.is_opaque]
    assert len(inside) > 5
    assert len(fused(trace.calls, trace.alive())) == len(inside)  # nobody reads the chains


def test_a_codec_as_a_kernel(trace):
    codec, x = Uniform(bits=4, group=16), torch.empty(64, 64)
    encode = trace.as_kernel("encode", Uniform.encode, 2)
    decode = trace.as_kernel("decode", Uniform.decode)
    with trace:
        stored = encode(codec, x)
        value = decode(codec, *stored, shape=x.shape, dtype=x.dtype)
    encoding, decoding = trace.calls
    bytes_stored = codec.nbits(x.shape, x.dtype) // 8
    assert (encoding.name, encoding.launches) == ("encode", 2)
    assert (decoding.name, decoding.launches) == ("decode", 1)
    assert encoding.bytes == x.nbytes + bytes_stored
    assert decoding.bytes == bytes_stored + value.nbytes
    assert trace.memory.peak == bytes_stored + value.nbytes  # with no temporaries


@pytest.mark.parametrize("recipe", [None, "exact", "balanced"])
def test_peak_is_the_one_measured(recipe):
    """To the byte, because no value of so small a step is cut in chunks."""

    def made():
        batch = torch.randn(4, 3, 160, 160), torch.randint(10, (4,))
        return Trainee(model, torch.optim.SGD(model.parameters()), "fp32"), batch

    model = build("test_vit", 160)
    if recipe:
        razor_(model, recipe)
    trainee, batch = made()
    measured = measure_step(model, lambda: trainee.loss(batch), batch).peak
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        assert trace_step(*made()).peak == measured


def test_a_network_that_looks_at_its_values_is_refused():
    class Looks(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.mean() > 0 else x

    with FakeTensorMode():
        model = Looks(2, 2)
        trainee = Trainee(model, torch.optim.SGD(model.parameters()), "fp32")
        batch = (torch.empty(4, 2), torch.zeros(4, dtype=torch.int64))
        with pytest.raises(RazorError, match="does not look at the values"):
            trace_step(trainee, batch)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["roofline", *arguments])
    roofline.main()


def test_table(monkeypatch, tmp_path, capsys):
    path = tmp_path / "rows.json"
    network = ["--model", "test_vit", "--size", "160", "--recipes", "balanced"]
    run(monkeypatch, *network, "--gpus", "T4,50:700", "--json", str(path))
    dense, checkpointing, operators, kernels = json.loads(path.read_text())["rows"]
    assert [row["variant"] for row in (checkpointing, operators)] == ["checkpointing", "balanced"]
    assert (operators["codecs"], kernels["codecs"]) == ("operators", "kernels")
    assert kernels["peak"] <= operators["peak"] < dense["peak"]
    assert dense["eager"]["GFLOP"] == dense["compiled"]["GFLOP"] < checkpointing["eager"]["GFLOP"]
    for mode in ("eager", "compiled"):
        assert dense[mode]["launches"] < kernels[mode]["launches"] < operators[mode]["launches"]
        assert dense[mode]["GB"] < kernels[mode]["GB"] < operators[mode]["GB"]
        for gpu in ("T4", "50:700"):
            assert dense[mode]["ms"][gpu] < kernels[mode]["ms"][gpu] < operators[mode]["ms"][gpu]
    for row in (dense, checkpointing, operators, kernels):
        assert row["compiled"]["launches"] < row["eager"]["launches"]
        assert row["compiled"]["GB"] < row["eager"]["GB"]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("estimated" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--gpus", "H200"], "--gpus: 'H200' is none of H100, A100, 4090, T4"),
        (["--gpus", "50:700:3"], "'50:700:3' is none of"),
        (["--gpus", "nan:700"], "'nan:700' is none of"),
        (["--gpus", "0:700"], "nor two positive numbers TFLOP/s:GB/s"),
        (["--precision", "fp32"], "for fp32 give TFLOP/s:GB/s"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--model", "no_such"], "there is no 'no_such'"),
        (["--model", "test_vit", "--size", "1"], "take another size"),
        (["--model", "test_vit", "--recipes", "none"], "unknown recipe 'none'"),
    ],
)
def test_bad_input_is_refused_in_one_line(monkeypatch, arguments, line):
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, *arguments)
    assert str(refused.value).startswith("roofline: ")
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
