"""The peak of a whole training step, with the optimizer's step after backward and within it.

    python tools/in_backward.py --recipes balanced,compact
    python tools/in_backward.py --model resnet50 --size 128 --optimizer sgd

The network trains dense, with activation checkpointing, and by each recipe. The peak is that of
forward, backward and step, with parameters, gradients and the optimizer's state. The time is the
ratio of medians of steps that alternate, within to after. Images are noise, weights random.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from bench import noise, peak_of_step, run, variants
from networks import Batch, Trainee, build
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from typing_extensions import override

from razorlight import step_in_backward
from razorlight.memory.meter import MIB

OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

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


def trainee(kind: type[Trainee], model: nn.Module, arguments: argparse.Namespace) -> Trainee:
    """A network with an optimizer whose update does all its work and changes nothing."""
    optimizer: Any = OPTIMIZERS[arguments.optimizer]
    options = {"momentum": 0.9} if arguments.optimizer == "sgd" else {}
    return kind(model, optimizer(model.parameters(), lr=0.0, **options), arguments.precision)


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
    """Bytes of parameters and peaks, and the ratio of times."""
    peaks, trainees = {}, []
    for name, kind in (("after", Trainee), ("within", WithinBackward)):
        trainees.append(trainee(kind, model, arguments))
        peaks[name] = peak_of_step(trainees[-1], batch)
    rounds = [[each.step(batch) for each in trainees] for _ in range(arguments.repeats)]
    after, within = [statistics.median(times) for times in zip(*rounds, strict=True)] or (1, 0)
    return {
        "gradients": sum(p.nbytes for p in model.parameters() if p.requires_grad),
        **peaks,
        "time": within / after or None,
    }


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The peaks in MiB, with their ratios to dense after backward, in 80 columns."""
    title = (
        f"{arguments.model}, weights random; {arguments.size} px, batch {arguments.batch}; "
        f"{arguments.optimizer}, {arguments.precision}, {arguments.device}; gradients "
        f"{rows[0]['gradients'] / MIB:.0f} MiB; peaks in MiB, measured"
    )
    table = Table("variant", title=title)
    for column in ("step after backward", "within backward", "less", "time within/after"):
        table.add_column(column, justify="right")
    dense = rows[0]["after"]
    for row in rows:
        table.add_row(
            row["variant"],
            *(f"{row[k] / MIB:.0f} ({dense / row[k]:.1f}x)" for k in ("after", "within")),
            f"{(row['after'] - row['within']) / MIB:.0f}",
            f"{row['time']:.2f}x" if row["time"] else "-",
        )
    Console(width=80).print(table)


def main() -> None:
    """Of the command line."""
    run("in_backward", parse_arguments(), measure, print_table)


if __name__ == "__main__":
    main()
