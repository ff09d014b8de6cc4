"""The peak, the gradients and the time of plans within budgets, beside the fixed recipes.

    python tools/budget.py
    python tools/budget.py --model resnet50 --size 128 --shares .8,.6,.45,.3

For each share of the dense peak a plan is made (`razorlight.memory.plan_within`), and a step by the
plan is measured: its peak, without what an optimizer holds, its time beside dense, and the cosine
of its gradient to the dense one. Weights are random, images are noise. --plot draws it all.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bench import WHOLE, cosines, gradients, noise, run, sgd, time_ratios, variants
from matplotlib.figure import Figure
from networks import Batch, Trainee, build, fresh, razored
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from razorlight.memory import measure_step, plan_within
from razorlight.memory.meter import MIB

Row = dict[str, Any]


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
    parser.add_argument("--size", type=int, default=112, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--shares", type=shares, default=[0.9, 0.75, 0.6, 0.5, 0.4], help="a,b,...")
    parser.add_argument(
        "--recipes", type=lambda names: names.split(","), default=["balanced", "compact"]
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="autocast")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each")
    parser.add_argument("--plot", type=Path, help="draw the rows into this PNG")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.set_defaults(sparsity=None, codec=None)
    return parser.parse_args()


def shares(text: str) -> list[float]:
    """``"a,b"`` as numbers."""
    return [float(number) for number in text.split(",")]


def measure(arguments: argparse.Namespace) -> list[Row]:
    """A row for dense, checkpointing, each recipe and each budget.

    Raises:
        RazorError: for a network that cannot be had, or a budget that is too small.
    """
    torch.manual_seed(0)
    dense = build(arguments.model, arguments.size)
    batch = next(noise(arguments))
    models: dict[str, nn.Module] = variants(dense, arguments)
    budgets: dict[str, float] = {}
    for share, name, model in planned(dense, batch, arguments):
        models[name], budgets[name] = model, share
    trainees = {n: Trainee(m, sgd(m, lr=0.0), arguments.precision) for n, m in models.items()}
    reference = gradients(trainees["dense"], batch)
    times = time_ratios(trainees, batch, arguments.repeats)
    return [
        {"variant": name, "budget": budgets.get(name), "time": times[name]}
        | measure_one(trainee, batch, reference)
        for name, trainee in trainees.items()
    ]


def measure_one(trainee: Trainee, batch: Batch, reference: dict[str, Tensor]) -> Row:
    """The peak of a step, and the cosines of its gradients."""
    found, inputs = cosines(gradients(trainee, batch), reference), fresh(batch)
    return {
        "peak": measure_step(trainee.model, lambda: trainee.loss(inputs), inputs).peak,
        "cosine": found[WHOLE],
        "lowest": min(found.values()),
    }


def planned(
    dense: nn.Module, batch: Batch, arguments: argparse.Namespace
) -> Iterator[tuple[float, str, nn.Module]]:
    """For each share: the share, words for the plan, and a copy that is converted by it."""

    def step(model: nn.Module, batch: Batch) -> Tensor:
        return Trainee(model, sgd(model, lr=0.0), arguments.precision).loss(batch)

    for share in arguments.shares:
        found = plan_within(share, dense, step, batch)
        yield share, f"budget {share:.2f}", razored(dense, plan=found.plan)


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The rows in 80 columns, and the plot."""
    dense = rows[0]["peak"]
    title = (
        f"{arguments.model}, {arguments.size} px, batch {arguments.batch}, {arguments.precision}, "
        "CPU, measured; peak without an optimizer"
    )
    table = Table("", title=title)
    for column in ("peak MiB", "of dense", "time", "cosine", "lowest matrix"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["variant"],
            f"{row['peak'] / MIB:.0f}",
            f"{row['peak'] / dense:.3f}",
            f"{row['time']:.2f}x",
            f"{row['cosine']:.4f}",
            f"{row['lowest']:.4f}",
        )
    Console(width=80, highlight=False).print(table)
    if arguments.plot:
        draw(rows, title, arguments.plot)


def draw(rows: list[Row], title: str, path: Path) -> None:
    """Time over peak, both as shares of dense."""
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    dense = rows[0]["peak"]
    kept = [row for row in rows if row["budget"]]
    axes.plot([r["peak"] / dense for r in kept], [r["time"] for r in kept], "o-", label="budgets")
    for row in rows:
        if not row["budget"]:
            axes.plot(row["peak"] / dense, row["time"], "s", label=row["variant"])
    axes.set_title(title, fontsize="small")
    axes.set(xlabel="peak, of dense", ylabel="time, of dense")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Of the command line."""
    run("budget", parse_arguments(), measure, print_table)


if __name__ == "__main__":
    main()
