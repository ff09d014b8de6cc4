"""Thousands of training steps by each recipe: does anything grow, slow down or go astray?

    python tools/soak.py
    python tools/soak.py --networks vit --recipes balanced --steps 500 --plot soak.png

A small ViT and a small CNN learn noise by heart, dense and by each recipe, from the same weights
and on the same batches. Live: bytes of tensors alive after a step, from the second on; flat is one
figure. RSS: by how much the process grew in the second half. Time: the median step of the last
quarter against that of the first. Loss: the mean of the last quarter, and the greatest distance of
its curve, a running mean, from the dense one. (On Linux, and on the CPU.)
"""

import argparse
import gc
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from razorlight import RECIPES, razor_
from razorlight.memory.meter import MIB, StorageMeter, model_tensors

DENSE = "dense"
BATCHES, BATCH, CLASSES = 8, 4, 4


def vit() -> nn.Module:
    """Two blocks of 32 channels over 16 tokens."""
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        depth=2,
        embed_dim=32,
        num_heads=2,
        init_values=1.0,  # a smaller layer scale learns nothing for hundreds of steps
        num_classes=CLASSES,
    )


def cnn() -> nn.Module:
    """Three convolutions with batch norms, gates, a curve and a pooling between them."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.SiLU(inplace=True),
        nn.Conv2d(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


NETWORKS = {"vit": vit, "cnn": cnn}


@dataclass
class Soaked:
    """What each step of one training left behind."""

    network: str
    recipe: str
    losses: list[float] = field(default_factory=list)
    live: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def live_range(self) -> tuple[int, int]:
        """Lowest and highest bytes alive after a step; the first makes gradients and momentum."""
        return min(self.live[1:]), max(self.live[1:])

    def resident_growth(self) -> int:
        """Bytes of the process from the middle of the run to its end."""
        return self.resident[-1] - self.resident[len(self.resident) // 2]

    def slowdown(self) -> float:
        """The median time of a step in the last quarter, in units of that in the first."""
        quarter = len(self.seconds) // 4
        first, last = self.seconds[:quarter], self.seconds[-quarter:]
        return statistics.median(last) / statistics.median(first)

    def final_loss(self) -> float:
        """Mean of the last quarter."""
        return statistics.fmean(self.losses[-(len(self.losses) // 4) :])

    def curve(self) -> Tensor:
        """Running means of the loss over two rounds of the batches."""
        return torch.tensor(self.losses).unfold(0, 2 * BATCHES, 1).mean(1)

    def distance(self, other: "Soaked") -> float:
        """The greatest between the two curves."""
        return (self.curve() - other.curve()).abs().max().item()


def soak(network: str, recipe: str, steps: int) -> Soaked:
    """Train ``network`` for so many steps, dense or by ``recipe``."""
    torch.manual_seed(0)
    model, loss = NETWORKS[network](), nn.CrossEntropyLoss()
    data = [
        (torch.randn(BATCH, 3, 16, 16), torch.randint(CLASSES, (BATCH,))) for _ in range(BATCHES)
    ]
    if recipe != DENSE:
        razor_(nn.ModuleList([model, loss]), recipe)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    result = Soaked(network, recipe)
    gc.collect()
    with StorageMeter() as meter:
        meter.track(model_tensors(model), data)
        for number in range(steps):
            start = time.perf_counter()
            inputs, labels = data[number % BATCHES]
            optimizer.zero_grad()
            value = loss(model(inputs), labels)
            value.backward()
            optimizer.step()
            result.losses.append(value.item())
            del value
            result.seconds.append(time.perf_counter() - start)
            result.live.append(meter.live)
            result.resident.append(resident_bytes())
    return result


def resident_bytes() -> int:
    """Memory of this process that lies in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def print_table(runs: list[Soaked], steps: int) -> None:
    """One row for each run, in 80 columns."""
    table = Table("network", "recipe", title=f"{steps} steps, batch {BATCH}; measured on the CPU")
    for column in ("live bytes", "RSS MiB", "time", "loss", "off dense"):
        table.add_column(column, justify="right")
    for run in runs:
        low, high = run.live_range()
        table.add_row(
            run.network,
            run.recipe,
            f"{low}" if low == high else f"{low} to {high}",
            f"{run.resident_growth() / MIB:+.1f}",
            f"{run.slowdown():.2f}x",
            f"{run.final_loss():.4f}",
            *(f"{run.distance(other):.4f}" for other in runs if is_dense_of(other, run)),
        )
    Console(width=80).print(table)


def is_dense_of(other: Soaked, run: Soaked) -> bool:
    """Whether ``other`` is the dense training of the network of ``run``."""
    return (other.network, other.recipe) == (run.network, DENSE)


def plot(runs: list[Soaked], path: Path) -> None:
    """Draw the loss curves, and the live bytes after each step, of each network."""
    networks = list(dict.fromkeys(run.network for run in runs))
    figure = Figure((5 * len(networks), 6), layout="constrained")
    axes = figure.subplots(2, len(networks), squeeze=False, sharex=True)
    for run in runs:
        column = networks.index(run.network)
        axes[0, column].plot(run.curve(), label=run.recipe)
        axes[1, column].plot([live / 2**10 for live in run.live[1:]], label=run.recipe)
    for column, network in enumerate(networks):
        axes[0, column].set(title=network, yscale="log", ylabel="loss, running mean")
        axes[1, column].set(xlabel="step", ylabel="live after a step, KiB")
        axes[0, column].legend()
    figure.savefig(path)


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", type=lambda names: names.split(","), default=[*NETWORKS], help="a,b,..."
    )
    parser.add_argument(
        "--recipes", type=lambda names: names.split(","), default=[*RECIPES], help="a,b,..."
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--plot", type=Path, help="write a PNG there")
    return parser.parse_args()


def main() -> None:
    """Train, print, and draw."""
    arguments = parse_arguments()
    runs = [
        soak(network, recipe, arguments.steps)
        for network in arguments.networks
        for recipe in (DENSE, *arguments.recipes)
    ]
    print_table(runs, arguments.steps)
    if arguments.plot:
        plot(runs, arguments.plot)


if __name__ == "__main__":
    main()
