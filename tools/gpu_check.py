"""Check the kernels, and measure time and memory of training steps, on one GPU in a few minutes.

    python tools/gpu_check.py --json gpu.json
    TRITON_INTERPRET=1 python tools/gpu_check.py --device cpu --small    # does the script run?

Kernels: whether each one gives the bits of the torch code, and the share of the bandwidth of a copy
that it reaches. An encode reads the value and writes the codes, a decode the other way round.
Norms: whether the kernels of their backward give the gradients of the torch code to rounding, and
the same share. They read codes and a gradient, and write a gradient; a batch norm reads both twice.
Others: the same of a GELU and its backward, computed by the launch that decodes, and of max pooling
and its backward.
Networks: the table of tools/bench.py for each, a language model as Llama among them, in bf16, and
the most memory that torch reserved.
Compiled: time and peak of a compiled step, dense and by ``balanced``. Nothing is downloaded.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bench
import torch
import torch.nn.functional as F
import triton
from llama import language
from networks import Trainee, build, razored
from rich.console import Console
from rich.table import Table
from torch import Tensor

from razorlight import Mask, Slope, Uniform
from razorlight.codecs import Codec, Step
from razorlight.codecs.kernels import Pooling, entrywise, max_pool, uniform
from razorlight.codecs.kernels import norm as norm_kernels
from razorlight.functional.batch_norm import _BatchNorm
from razorlight.functional.norm import _LayerNorm, _RMSNorm
from razorlight.functional.normalise import BackwardInputs, Norm, Reading, uncached_codes
from razorlight.memory.meter import MIB
from razorlight.records import Record, as_stored_layout, encoded_record

Row = dict[str, Any]
NETWORKS = [  # model, size in pixels or tokens, batch
    ("vit_small_patch16_224", 224, 128),
    ("vit_base_patch16_224", 224, 64),
    ("resnet50", 224, 128),
    ("Unet:tu-tf_efficientnet_lite0", 256, 64),
    ("llama", 512, 32),
]
SMALL_NETWORKS = [("vit_tiny_patch16_224", 32, 2), ("llama", 32, 2)]


def main() -> None:
    """Print the tables, and write ``--json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny values and networks")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check: there is no GPU here; --device cpu --small tries the script alone")
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    setting = f"{name}, torch {torch.__version__}, Triton {triton.__version__}"
    kernels = list(check_kernels(arguments.device, arguments.small))
    print_kernels(kernels, setting)
    norms = [check_norm(*given) for given in normalised(arguments.device, arguments.small)]
    print_norms("norms", norms, setting)
    others = [check_other(*given) for given in joined(arguments.device, arguments.small)]
    print_norms("others", others, setting)
    networks = [
        measure_network(*network, arguments.device, arguments.small)
        for network in (SMALL_NETWORKS if arguments.small else NETWORKS)
    ]
    compiled = [] if arguments.small else list(measure_compiled(*NETWORKS[0]))
    for row in compiled:
        print(f"compiled {row['variant']}: {row['ms']:.1f} ms, peak {row['peak']:.0f} MiB")
    if arguments.json:
        content = {"setting": setting, "kernels": kernels, "norms": norms, "others": others}
        content |= {"networks": networks, "compiled": compiled}
        arguments.json.write_text(json.dumps(content, indent=1, default=str))
    if not all(row["same"] for row in (*kernels, *norms, *others)):
        sys.exit("gpu_check: a kernel differs from the torch code")


def values(device: str, small: bool) -> Iterator[tuple[str, Codec, Tensor]]:
    """The values of typical layers, each with a codec that may store it."""
    torch.manual_seed(0)
    samples, tokens, width = (2, 37, 64) if small else (128, 197, 384)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=torch.bfloat16)

    yield "input of a LayerNorm", Uniform(4, axis=-2), draw(samples, tokens, width)
    yield (
        "hidden of an MLP",
        Uniform(4, axis=-2, token_scale=True),
        draw(samples, tokens, 4 * width),
    )
    heads = draw(samples, tokens, 3, width // 32, 32).transpose(1, 3)[:, :, 0]
    yield "queries, strided", Uniform(5, axis=-2, token_scale=True), heads
    side = 8 if small else 56
    maps = draw(samples, width // 4 * side, side)
    yield "input of a BatchNorm", Uniform(4, 64, axis=-2, preserves="signs"), maps
    yield "output of a ReLU", Uniform(3, axis=-2, preserves="zeros"), maps
    yield "gate of a ReLU6", Mask(), maps > 0
    yield "input of a SiLU", Slope(3, "silu"), maps


def check_kernels(device: str, small: bool) -> Iterator[Row]:
    """Compare the kernels with the torch code, and time them beside a copy."""
    for name, codec, x in values(device, small):
        kernels: Any = uniform if isinstance(codec, Uniform) else entrywise
        how: Any = {"shape": x.shape, "dtype": torch.bfloat16}
        stored = kernels.encode(codec, x)
        pairs = [*zip(stored, codec.encode(x), strict=True)]
        back, right = kernels.decode(codec, *stored, **how), codec.decode(*stored, **how)
        # the interpreter rounds twice where a GPU rounds once, and cuts bfloat16 off
        rtol, few = (2**-7, 1e-2) if device == "cpu" else (0, 0)
        same = torch.allclose(back.float(), right.float(), rtol=rtol, atol=rtol / 10)
        same &= all((a != b).float().mean() <= few for a, b in pairs)
        codes = sum(tensor.nbytes for tensor in stored)
        seconds = {
            "copy": seconds_of(back.clone, device),
            "encode": seconds_of(partial(kernels.encode, codec, x), device),
            "decode": seconds_of(partial(kernels.decode, codec, *stored, **how), device),
            "torch encode": seconds_of(partial(codec.encode, x), device),
        }
        copied = 2 * back.nbytes / seconds["copy"]
        yield {
            "value": name,
            "codec": str(codec),
            "same": same,
            "encode": (x.nbytes + codes) / seconds["encode"] / copied,
            "decode": (back.nbytes + codes) / seconds["decode"] / copied,
            "faster": seconds["torch encode"] / seconds["encode"],
            "copy GB/s": copied / 1e9,
        }


def normalised(device: str, small: bool) -> Iterator[tuple[str, Norm, Uniform, Tensor]]:
    """The normalised inputs of typical norms, each with the codec of the recipe ``balanced``."""
    torch.manual_seed(0)
    samples, tokens, width = (2, 37, 64) if small else (128, 197, 384)
    for name, norm in [("LayerNorm", _LayerNorm), ("RMSNorm", _RMSNorm)]:
        x = torch.randn(samples, tokens, width, device=device, dtype=torch.bfloat16)
        yield name, norm((width,), 1e-5), Uniform(4, axis=-2), x
    side = 8 if small else 28
    batch_norm, codec = _BatchNorm((None, None), 0.1, 1e-5), Uniform(4, 64, axis=-2)
    x = torch.randn(samples, width, side, side, device=device, dtype=torch.bfloat16)
    yield "BatchNorm", batch_norm, codec.preserving("signs"), x
    x = x.contiguous(memory_format=torch.channels_last)
    yield "BatchNorm, channels last", batch_norm, codec.preserving("signs"), x


def check_norm(name: str, norm: Norm, codec: Uniform, x: Tensor) -> Row:
    """Compare the gradients of a norm with those of the torch code, and time both beside a copy."""
    device, channels = x.device.type, x.shape[norm.channels]
    record = encoded_record((), x, codec, x.dtype, norm.channels)
    stored = uniform.encode(codec, as_stored_layout(x, norm.channels))
    record = Record(stored, record.reader)
    codes = uncached_codes(record)
    weight = torch.randn(channels, device=device)
    statistics = (*x.shape[:-1], 1) if norm.channels == -1 else (channels, 1, 1)
    rstd = torch.rand(statistics, device=device) + 0.5
    mean, grad = rstd.new_zeros(()), torch.randn_like(x)
    needs = [True, True, not isinstance(norm, _RMSNorm)]

    def by_kernels() -> Any:
        given = BackwardInputs(grad, weight, None, mean, rstd, needs)
        return norm.backward_of_codes(norm_kernels, codes, given)

    def by_torch(wide: torch.dtype = x.dtype) -> Any:
        value = record.read().to(wide)
        return norm.backward(grad.to(wide), Reading(value, mean, rstd, True), weight, weight, needs)

    pairs = zip(by_kernels(), by_torch(torch.float32), strict=True)
    same = all((a - b).abs().max() <= 2**-7 * b.abs().max() for a, b in pairs if b is not None)
    times = 2 if isinstance(norm, _BatchNorm) else 1
    moved = times * (grad.nbytes + sum(tensor.nbytes for tensor in stored)) + x.nbytes
    copied = 2 * x.nbytes / seconds_of(x.clone, device)
    seconds = seconds_of(by_kernels, device)
    return {
        "value": name,
        "codec": str(codec),
        "same": same,
        "bandwidth": moved / seconds / copied,
        "faster": seconds_of(by_torch, device) / seconds,
    }


Call = Callable[[], Tensor]


def joined(device: str, small: bool) -> Iterator[tuple[str, Call, Call, int]]:
    """By name: a function by kernels, the same by torch code, and the bytes that it moves."""
    torch.manual_seed(0)
    shape = (2, 37, 64) if small else (128, 197, 1536)
    codec = Uniform(3, axis=-2, token_scale=True)
    x, grad = torch.randn((2, *shape), device=device, dtype=torch.bfloat16)
    stored, how = uniform.encode(codec, x), {"shape": x.shape, "dtype": x.dtype}
    codes = sum(tensor.nbytes for tensor in stored)

    def decode(*steps: Step) -> Tensor:
        return uniform.decode(codec, *stored, **how, steps=steps)

    yield (
        "GELU of decoded",
        lambda: decode(Step("gelu", (), None)),
        lambda: F.gelu(decode()),
        codes + x.nbytes,
    )
    yield (
        "GELU, backward",
        lambda: decode(Step("gelu_gradient", (grad,), None)),
        lambda: torch.ops.aten.gelu_backward(grad, decode()),
        codes + 2 * x.nbytes,
    )
    maps = torch.randn(2, 8, 16, 16, device=device) if small else None
    maps = torch.randn(128, 64, 112, 112, device=device) if maps is None else maps
    for name, form in [("", torch.contiguous_format), (", channels last", torch.channels_last)]:
        x = maps.bfloat16().contiguous(memory_format=form)
        how_pooled = Pooling(([3, 3], [2, 2], [1, 1], [1, 1]), 4, bool(name))
        out, places = max_pool.pool(x, how_pooled, [x.shape[2] // 2] * 2)
        leaf = x.clone().requires_grad_()
        pooled = F.max_pool2d(leaf, 3, 2, 1)
        moved = x.nbytes + out.nbytes + places.nbytes
        yield (
            f"max pooling{name}",
            lambda x=x, how=how_pooled, size=out.shape[2:]: max_pool.pool(x, how, size)[0],
            lambda x=x: F.max_pool2d(x, 3, 2, 1),
            moved,
        )
        yield (
            f"its backward{name}",
            lambda x=x, o=out, p=places, how=how_pooled: max_pool.gradient(o, p, how, x.shape),
            lambda x=leaf, y=pooled: torch.autograd.grad(y, x, y.detach(), retain_graph=True)[0],
            moved,
        )


def check_other(name: str, by_kernels: Call, by_torch: Call, moved: int) -> Row:
    """Compare a kernel with torch code, and time both beside a copy of as many bytes."""
    ours, right = by_kernels().float(), by_torch().float()
    device = ours.device.type
    copied = torch.empty(moved // 2, dtype=torch.uint8, device=device)
    seconds = seconds_of(by_kernels, device)
    return {
        "value": name,
        "same": bool((ours - right).abs().max() <= 2**-6 * right.abs().max()),
        "bandwidth": seconds_of(copied.clone, device) / seconds,
        "faster": seconds_of(by_torch, device) / seconds,
    }


def seconds_of(run: Callable[[], Any], device: str, repeats: int = 20) -> float:
    """The median time of a call, after three calls that are not counted."""
    times = []
    for _ in range(3 + repeats if device == "cuda" else 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[-repeats:])


def print_kernels(rows: list[Row], setting: str) -> None:
    """A table of 80 columns."""
    table = Table("value", title=f"Kernels: {setting}; bandwidth as a share of a copy's; measured")
    for column in ("same bits", "encode", "decode", "times torch's"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = (f"{row[name]:.2f}" for name in ("encode", "decode"))
        table.add_row(
            row["value"], "yes" if row["same"] else "NO", *numbers, f"{row['faster']:.1f}"
        )
    Console(width=80, highlight=False).print(table)


def print_norms(what: str, rows: list[Row], setting: str) -> None:
    """A table of 80 columns."""
    table = Table("kernel", title=f"Kernels of {what}: {setting}; measured")
    for column in ("near torch's", "bandwidth", "times torch's"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = f"{row['bandwidth']:.2f}", f"{row['faster']:.1f}"
        table.add_row(row["value"], "yes" if row["same"] else "NO", *numbers)
    Console(width=80, highlight=False).print(table)


def measure_network(model: str, size: int, batch: int, device: str, small: bool) -> Row:
    """The rows of tools/bench.py for one network, printed.

    Args:
        model: of timm or smp, or ``llama`` for :mod:`llama`.
        size: of the images in pixels, or of the texts in tokens.
        batch: the number of images or texts.
        device: cuda or cpu.
        small: Whether the language model is a tiny one.
    """
    options = ["--model", model, "--size", str(size), "--batch", str(batch), "--device", device]
    options += ["--images", "random", "--precision", "bf16", "--batches", "1", "--head-steps", "0"]
    arguments = bench.parse_arguments([*options, "--recipes", "exact,balanced,compact"])
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if model == "llama":
        rows = bench.compare(*language(batch, size, small, device), arguments)
    else:
        rows = bench.measure(arguments)
    bench.print_table(rows, arguments)
    reserved = torch.cuda.max_memory_reserved() / MIB if device == "cuda" else None
    return {"model": model, "size": size, "batch": batch, "rows": rows, "reserved": reserved}


def measure_compiled(model: str, size: int, batch: int) -> Iterator[Row]:
    """Time and peak of a compiled step on the GPU, dense and by ``balanced``."""
    torch.manual_seed(0)
    dense = build(model, size).cuda()
    images = torch.randn(batch, 3, size, size, device="cuda"), torch.zeros(batch).long().cuda()
    for name in ("dense", "balanced"):
        torch.compiler.reset()
        network = dense if name == "dense" else razored(dense, recipe=name)
        trainee = Trainee(network, bench.sgd(network, lr=0.0), "bf16")
        trainee.model = torch.compile(network)
        for _ in range(3):
            trainee.step(images)
        torch.cuda.reset_peak_memory_stats()
        times = [trainee.step(images) for _ in range(10)]
        peak = torch.cuda.max_memory_allocated() / MIB
        yield {"variant": name, "ms": statistics.median(times) * 1000, "peak": peak}


if __name__ == "__main__":
    main()
