"""An estimate of what a training step takes on a GPU: launches, bytes, products, time and peak.

    python tools/roofline.py
    python tools/roofline.py --model resnet50 --recipes exact,balanced --gpus A100,50:700
    python tools/roofline.py --model Unet:tu-tf_efficientnet_lite0 --batch 32

No GPU is needed, and nothing is measured. The step is traced on fake tensors below autograd. Each
operator reads its inputs and writes its outputs once, views are free, and a norm reads its input
twice where it needs sums first. An operator takes the longest of three times: of its products at
the GPU's peak, of its bytes at the GPU's bandwidth, and of a launch, 5 microseconds.

- Eager: every operator is a launch. Compiled: a chain of light operators between two products is
  one launch, which reads and writes once. A compiler does not look into codecs and kernels.
- Each recipe has two rows. In the first, codecs are made of torch operators, which are launched
  one by one. In the second the kernels of razorlight run: an encoding reads the value in two
  launches, or in three if tokens have scales; a decoding is one launch, with the elementwise
  functions that follow; the backward of a norm reads codes; max pooling is a kernel.
- The update is that of a fused AdamW, one launch that moves 28 bytes a parameter.
- The peak holds parameters, gradients, buffers and the batch, but not the optimizer's state, which
  takes 8 bytes a parameter with AdamW. It is that of the eager step.

The estimate leaves out the time of Python, the scratch memory of kernels, and shapes at which
products do not reach the peak. Operators are those that torch runs on a CPU: where a GPU has a
fused kernel and the CPU has none, such as attention with a learned mask, the parts are counted.
razorlight cuts no value into chunks here.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import Row, noise, run, sgd, variants
from networks import Trainee, build, fresh
from rich import box
from rich.console import Console
from rich.table import Table
from step_trace import Access, Call
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from traced_step import Step, trace_step

from razorlight import RazorError
from razorlight.memory.meter import MIB

LAUNCH = 5e-6
"""Seconds that a kernel takes at least."""


class Gpu(NamedTuple):
    """A GPU by its two numbers, as far as real programs reach them.

    Attributes:
        tflops: 10**12 floating-point operations a second, in the step's precision.
        bandwidth: of its memory, in 10**9 bytes a second.
    """

    tflops: float
    bandwidth: float

    def seconds(self, calls: Sequence[Call]) -> float:
        """The time of ``calls``, one after the other."""
        return sum(self._seconds(call) for call in calls)

    def _seconds(self, call: Call) -> float:
        products, moves = call.flops / (self.tflops * 1e12), call.bytes / (self.bandwidth * 1e9)
        return max(products, moves, call.launches * LAUNCH)


KNOWN = {
    "H100": Gpu(650, 3000),
    "A100": Gpu(250, 1600),
    "4090": Gpu(150, 900),
    "T4": Gpu(40, 260),
}
"""Half-precision products. The T4 has them in fp16 alone."""


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="vit_small_patch16_224",
        help="of timm, or Architecture:encoder of smp",
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--recipes", type=names, default=["balanced", "compact"], help="a,b,...")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16", help="autocast")
    parser.add_argument(
        "--gpus",
        type=names,
        default=[*KNOWN],
        help=f"of {', '.join(KNOWN)}, or any by its TFLOP/s and GB/s, such as 50:700",
    )
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.set_defaults(sparsity=None, codec=None)
    return parser.parse_args()


def names(text: str) -> list[str]:
    """``"a,b"`` as ``["a", "b"]``."""
    return text.split(",")


def gpus(arguments: argparse.Namespace) -> dict[str, Gpu]:
    """The GPUs by their names, or by the two numbers that they were given by.

    Raises:
        RazorError: for anything else.
    """
    return {name: gpu(name, arguments.precision) for name in arguments.gpus}


def gpu(name: str, precision: str) -> Gpu:
    """The GPU of a name, or of ``TFLOP/s:GB/s``.

    Raises:
        RazorError: for anything else.
    """
    if name in KNOWN:
        if precision == "fp32":
            raise RazorError(
                f"--gpus: the numbers of {name} are those of half precision; "
                "for fp32 give TFLOP/s:GB/s, such as 50:700"
            )
        return KNOWN[name]
    try:
        given = Gpu(*map(float, name.split(":")))
    except (TypeError, ValueError):
        given = Gpu(0, 0)
    if not all(0 < number < float("inf") for number in given):
        raise RazorError(
            f"--gpus: {name!r} is none of {', '.join(KNOWN)}, nor two positive numbers "
            "TFLOP/s:GB/s, such as 50:700"
        )
    return given


def estimate(arguments: argparse.Namespace) -> list[Row]:
    """A row for each variant, and a second one with kernels if it runs codecs.

    Raises:
        RazorError: for a network, a recipe, a GPU or a number that cannot be had.
    """
    for name in ("batch", "size"):
        if getattr(arguments, name) < 1:
            raise RazorError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    chosen = gpus(arguments)
    dense = build(arguments.model, arguments.size).to("meta")  # where copies take no memory
    return [
        {"variant": name, "codecs": codecs, "peak": step.peak / MIB}
        | {
            mode: totals([*calls, update_of(model)], chosen)
            for mode, calls in (("eager", step.eager), ("compiled", step.compiled))
        }
        for name, model in variants(dense, arguments).items()
        for codecs, step in steps(model, arguments).items()
    ]


def steps(model: nn.Module, arguments: argparse.Namespace) -> dict[str, Step]:
    """The traced step with codecs of torch operators, and with kernels if any codec runs.

    Args:
        model: on the meta device; its tensors become fake ones.
        arguments: of the command line.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainee = Trainee(model.to_empty(device="cpu"), sgd(model, lr=0.0), arguments.precision)
        batch = next(noise(arguments))
        found = {"operators": trace_step(trainee, fresh(batch))}
        if any(call.is_opaque for call in found["operators"].eager):
            found["kernels"] = trace_step(trainee, fresh(batch), has_kernels=True)
    return found


def update_of(model: nn.Module) -> Call:
    """The update of a fused AdamW.

    It reads each parameter, its gradient and two averages, all in float32, and writes all but the
    gradient.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    read, written = (Access(-1, 0, n * trained, n * trained) for n in (16, 12))
    return Call("update", (read,), (written,))


def totals(calls: Sequence[Call], chosen: dict[str, Gpu]) -> Row:
    """Launches, bytes, products and times of a whole step."""
    return {
        "launches": sum(call.launches for call in calls),
        "GB": sum(call.bytes for call in calls) / 1e9,
        "GFLOP": sum(call.flops for call in calls) / 1e9,
        "ms": {name: 1e3 * gpu.seconds(calls) for name, gpu in chosen.items()},
    }


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The rows of the eager step, and those of the compiled one, in 80 columns."""
    console = Console(width=80, highlight=False)
    for mode in ("eager", "compiled"):
        table = Table(
            "",
            title=f"{arguments.model}, {arguments.size} px, batch {arguments.batch}, "
            f"{arguments.precision}, {mode}; estimated",
            box=box.SIMPLE_HEAD,
            padding=0,
            min_width=72,
        )
        peak = ["peak MiB"] if mode == "eager" else []
        for column in ("launches", "GB", "GFLOP", *peak, *rows[0][mode]["ms"]):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*cells(row, rows[0], mode))
        console.print(table)


def cells(row: Row, dense: Row, mode: str) -> list[str]:
    """A row of the table: times as ratios to dense, of dense in ms."""
    of = row[mode]
    times = [
        f"{ms:.1f}" if row is dense else f"{ms / dense[mode]['ms'][name]:.2f}x"
        for name, ms in of["ms"].items()
    ]
    return [
        label(row),
        str(of["launches"]),
        f"{of['GB']:.1f}",
        f"{of['GFLOP']:.0f}",
        *([f"{row['peak']:.0f}"] if mode == "eager" else []),
        *times,
    ]


def label(row: Row) -> str:
    """What stands in front of a row."""
    if row["variant"] == "dense":
        return "dense, in ms"
    return f"{row['variant']}, kernels" if row["codecs"] == "kernels" else row["variant"]


def main() -> None:
    """Of the command line."""
    run("roofline", parse_arguments(), estimate, print_table)


if __name__ == "__main__":
    main()
