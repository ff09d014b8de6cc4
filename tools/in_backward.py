"""The peak of a whole training step: optimizer after backward, within it, with 8-bit states.

    python tools/in_backward.py --recipes balanced,compact --low-bit
    python tools/in_backward.py --model resnet50 --size 128 --optimizer sgd
    python tools/in_backward.py --model resnet50 --size 128 --low-bit --repeats 0 --explain

The network trains dense, with activation checkpointing, and by each recipe. The peak is that of
forward, backward and step, with parameters, gradients and the optimizer's state. The times are
ratios of medians of steps that alternate, to the step after backward. Images are noise, weights
random. --low-bit steps within backward by the optimizer of bitsandbytes that holds its states in
8 bits. --explain says what sets the last peak of each row, but for what the optimizer computes.
"""

import argparse
import statistics
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from bench import noise, peak_of_step, run, variants
from networks import Batch, Trainee, build, fresh
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from typing_extensions import override

from razorlight import RazorError, step_in_backward
from razorlight.memory import find_peak, storage_bytes
from razorlight.memory.in_backward import free_gradient
from razorlight.memory.meter import MIB

OPTIMIZERS = {
    "adamw": ("torch.optim.AdamW", "bitsandbytes.optim.AdamW8bit"),
    "sgd": ("torch.optim.SGD", "bitsandbytes.optim.SGD8bit"),
}
"""By name: the class, and that with states of 8 bits."""

Row = dict[str, Any]


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="vit_small_patch14_dinov2",
        help="of timm, or Architecture:encoder of smp",
    )
    parser.add_argument("--size", type=int, default=112, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--recipes", type=lambda names: names.split(","), default=["compact"])
    parser.add_argument("--optimizer", choices=[*OPTIMIZERS], default="adamw")
    parser.add_argument("--low-bit", action="store_true", help="also with states of 8 bits")
    parser.add_argument("--explain", action="store_true", help="say what sets the last peak")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each; 0 times none")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.set_defaults(sparsity=None, codec=None)
    return parser.parse_args()


class WithinBackward(Trainee):
    """Its optimizer steps within backward."""

    @override
    def backward(self, loss: Tensor) -> None:
        with step_in_backward(self.optimizer):
            loss.backward()


def optimizer_class(name: str, low_bit: bool) -> Any:
    """The class of an optimizer, or of that with states of 8 bits.

    Raises:
        RazorError: if bitsandbytes is needed and absent.
    """
    module, _, name = OPTIMIZERS[name][low_bit].rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise RazorError(f"--low-bit: {error}; pip install bitsandbytes") from None


def trainee(
    kind: type[Trainee], model: nn.Module, arguments: argparse.Namespace, low_bit: bool = False
) -> Trainee:
    """A network with an optimizer whose update does all its work and changes nothing."""
    make = optimizer_class(arguments.optimizer, low_bit)
    options = {"momentum": 0.9} if arguments.optimizer == "sgd" else {}
    return kind(model, make(model.parameters(), lr=0.0, **options), arguments.precision)


def measure(arguments: argparse.Namespace) -> list[Row]:
    """One row for each variant.

    Raises:
        RazorError: for a network or a recipe that cannot be had.
    """
    torch.manual_seed(0)
    dense = build(arguments.model, arguments.size).to(arguments.device)
    images, labels = (t.to(arguments.device) for t in next(noise(arguments)))
    return [
        {"variant": name, **measure_one(model, (images, labels), arguments)}
        for name, model in variants(dense, arguments).items()
    ]


def measure_one(model: nn.Module, batch: Batch, arguments: argparse.Namespace) -> Row:
    """Bytes of parameters, gradients, states and peaks, and ratios of times."""
    trainees = {
        "after": trainee(Trainee, model, arguments),
        "within": trainee(WithinBackward, model, arguments),
    }
    if arguments.low_bit:
        trainees["low bit"] = trainee(WithinBackward, model, arguments, low_bit=True)
    peaks = {name: peak_of_step(each, batch) for name, each in trainees.items()}
    rounds = [[each.step(batch) for each in trainees.values()] for _ in range(arguments.repeats)]
    times = [statistics.median(t) for t in zip(*rounds, strict=True)] or [None] * len(trainees)
    (*_, last) = trainees.values()
    return {
        "parameters": storage_bytes([*model.parameters()]),
        "gradients": sum(p.nbytes for p in model.parameters() if p.requires_grad),
        "states": {name: storage_bytes(each.optimizer.state) for name, each in trainees.items()},
        "peaks": peaks,
        "times": {n: t and t / times[0] for n, t in zip(trainees, times, strict=True)},
        "explained": explain(last, batch) if arguments.explain else None,
    }


def explain(trainee: Trainee, batch: Batch) -> str:
    """What sets the peak of forward and backward, if gradients are freed at once."""
    batch = fresh(batch)
    hooks = [
        p.register_post_accumulate_grad_hook(free_gradient)
        for p in trainee.model.parameters()
        if p.requires_grad
    ]
    try:
        peak = find_peak(trainee.model, lambda: trainee.loss(batch), batch, trainee.optimizer)
        return str(peak)
    finally:
        for hook in hooks:
            hook.remove()


NAMES = {"after": "step after backward", "within": "within backward", "low bit": "8-bit states"}


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The peaks in MiB, with their ratios to dense after backward, in 80 columns."""
    dense = rows[0]
    states = ", ".join(
        f"{size / MIB:.0f}" for size in {**dense["states"], "within": 0}.values() if size
    )
    title = (
        f"{arguments.model}, weights random; {arguments.size} px, batch {arguments.batch}; "
        f"{arguments.optimizer}, {arguments.precision}, {arguments.device}; parameters "
        f"{dense['parameters'] / MIB:.0f} MiB, gradients {dense['gradients'] / MIB:.0f}, states "
        f"{states}; peaks in MiB, measured; x: times less than dense; time: to after backward"
    )
    table = Table("variant", title=title)
    for name in dense["peaks"]:
        table.add_column(NAMES[name], justify="right")
    timed = [name for name in dense["times"] if name != "after"]
    table.add_column("time", justify="right")
    for row in rows:
        table.add_row(
            row["variant"],
            *(f"{p / MIB:.0f} ({dense['peaks']['after'] / p:.1f}x)" for p in row["peaks"].values()),
            ", ".join(f"{row['times'][n]:.2f}x" if row["times"][n] else "-" for n in timed),
        )
    console = Console(width=80, highlight=False)
    console.print(table)
    for row in rows:
        if row["explained"]:
            console.print(f"{row['variant']}: {row['explained']}", soft_wrap=True)


def main() -> None:
    """Of the command line."""
    run("in_backward", parse_arguments(), measure, print_table)


if __name__ == "__main__":
    main()
