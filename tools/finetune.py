"""Fine-tune one network on real images, dense and by each recipe, from the same start.

    python tools/finetune.py --study cifar10 --recipes paper,balanced --epochs 1 --train-images 2000
    python tools/finetune.py --study camvid --recipes paper,balanced --epochs 10 --seeds 0,1
    python tools/finetune.py --size 42 --recipes compact --low-bit --train-images 640 --epochs 2

``cifar10``: a trained ViT-S/14 at 112 px, AdamW with 2e-5 and ten times that for its fresh head.
``camvid``: Unet on EfficientNet-Lite0 with its ImageNet weights at 160 x 128 px, AdamW with 5e-4.
Both with horizontal flips, and a rate that falls to 0 as a cosine; the score, taken after the last
epoch, is that of images that were not trained on.

All variants of a seed train in turn, step by step on the same batches, so that their times compare.
Stored: bytes alive between forward and backward, for each sample. Time: median of whole steps.
--low-bit trains each recipe a second time: within backward, by AdamW with states of 8 bits.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from in_backward import WithinBackward, optimizer_class
from lightning.fabric.utilities import move_data_to_device
from networks import (
    AT_HAND,
    AssetImages,
    Batch,
    CamVidImages,
    Cifar10Subset,
    Precision,
    Trainee,
    build,
    normalisation,
    razored,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from razorlight import RazorError
from razorlight.data.transforms import IGNORE_INDEX

DENSE = "dense"

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A network, its data and its score.

    Attributes:
        network: a name for :func:`networks.build`, with real weights at hand.
        data: the images.
        size: height and width of the images, in pixels.
        batch: images of a step.
        rate: of learning, at the start.
        head: name of the layer that classifies.
        head_rate: of learning, for that layer.
        score: what ``metric`` is called.
        metric: makes one, to be fed with logits and targets.
    """

    network: str
    data: type[AssetImages]
    size: tuple[int, int]
    batch: int
    rate: float
    head: str
    head_rate: float
    score: str
    metric: Callable[[], Metric]


STUDIES = {
    "cifar10": Study(
        network="vit_small_patch14_dinov2",
        data=Cifar10Subset,
        size=(112, 112),
        batch=32,
        rate=2e-5,
        head="head",
        head_rate=2e-4,
        score="accuracy",
        metric=lambda: MulticlassAccuracy(len(Cifar10Subset.class_names), average="micro"),
    ),
    "camvid": Study(
        network="Unet:tu-tf_efficientnet_lite0",
        data=CamVidImages,
        size=(128, 160),
        batch=8,
        rate=5e-4,
        head="segmentation_head",
        head_rate=5e-4,
        score="mIoU",
        metric=lambda: MulticlassJaccardIndex(
            len(CamVidImages.class_names), ignore_index=IGNORE_INDEX
        ),
    ),
}


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=[*STUDIES], default="cifar10")
    parser.add_argument(
        "--recipes",
        type=lambda names: [name for name in names.split(",") if name != DENSE],
        default=["paper"],
        help="a,b,...; dense goes with them anyway",
    )
    parser.add_argument("--size", type=int, help="height and width of the images, in pixels")
    parser.add_argument("--low-bit", action="store_true", help="also with states of 8 bits")
    parser.add_argument("--sparsity", type=float, help="in place of each recipe's own")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train-images", type=int, help="train on so many of them, not on all")
    parser.add_argument("--judged-images", type=int, help="judge by so many of the others at most")
    parser.add_argument(
        "--seeds",
        type=integers,
        default=[0],
        help="a,b,...: of the fresh layers, the order of the images and the flips",
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def integers(text: str) -> list[int]:
    """``0,1`` as numbers."""
    return [int(number) for number in text.split(",")]


class Learner(Trainee):
    """A network on its way through a study.

    Args:
        model: as for :class:`Trainee`.
        study: says how fast it learns.
        steps: of the whole run.
        precision: as for :class:`Trainee`.

    Attributes:
        low_bit: Whether the states of the optimizer have 8 bits.
        seconds: of each step so far.
    """

    low_bit = False

    def __init__(self, model: nn.Module, study: Study, steps: int, precision: Precision) -> None:
        named = [*model.named_parameters()]
        head = [p for name, p in named if name.startswith(f"{study.head}.")]
        body = [p for name, p in named if not name.startswith(f"{study.head}.")]
        groups = [{"params": body, "lr": study.rate}, {"params": head, "lr": study.head_rate}]
        super().__init__(model, optimizer_class("adamw", self.low_bit)(groups), precision)
        self.scheduler = CosineAnnealingLR(self.optimizer, steps)
        self.seconds: list[float] = []

    def learn(self, batch: Batch, number: int) -> None:
        """Take step ``number``."""
        self.seconds.append(self.step(batch, seed=number))
        self.scheduler.step()

    def judge(self, batches: Iterable[Batch], metric: Metric) -> float:
        """The metric over ``batches``, the network left in evaluation mode."""
        self.model.eval()
        metric.to(self.device)
        with torch.no_grad():
            for images, targets in batches:
                metric.update(self.model(images.to(self.device)), targets.to(self.device))
        return metric.compute().item()


class LowBitLearner(WithinBackward, Learner):
    """Steps within backward, with states of 8 bits."""

    low_bit = True


def run(study: Study, arguments: argparse.Namespace, seed: int) -> dict[str, Row]:
    """Train and judge all variants of one seed.

    Returns:
        By variant its ``score``, ``stored`` MiB per sample, and the ``seconds`` of each step.

    Raises:
        RazorError: if the assets are absent, or for an unknown recipe.
    """
    torch.manual_seed(seed)
    data = study.data(
        study.size,
        arguments.train_images,
        batch_size=study.batch,
        **normalisation(study.network),
    )
    data.setup("fit")
    loader = data.train_dataloader()
    steps = arguments.epochs * len(loader)
    judged = arguments.judged_images and -(-arguments.judged_images // study.batch)
    learners = {
        name: kind(model, study, steps, arguments.precision)
        for name, (kind, model) in variants(study, arguments).items()
    }
    device = torch.device(arguments.device)
    first = move_data_to_device(next(iter(loader)), device)
    stored = {name: learner.stored_per_sample(first) for name, learner in learners.items()}
    batches = (
        move_data_to_device(batch, device) for _ in range(arguments.epochs) for batch in loader
    )
    shown = track(batches, f"seed {seed}", total=steps, console=Console(stderr=True))
    for number, batch in enumerate(shown):
        for learner in learners.values():
            learner.learn(batch, number)
    return {
        name: {
            "stored": stored[name],
            "seconds": learner.seconds,
            "score": learner.judge(islice(data.val_dataloader(), judged), study.metric()),
        }
        for name, learner in learners.items()
    }


def variants(
    study: Study, arguments: argparse.Namespace
) -> dict[str, tuple[type[Learner], nn.Module]]:
    """The dense network, and by each recipe a copy of it, each with what trains it."""
    dense = build(study.network, max(study.size), AT_HAND).to(arguments.device)
    found: dict[str, tuple[type[Learner], nn.Module]] = {DENSE: (Learner, dense)}
    for recipe in arguments.recipes:
        kinds = {recipe: Learner}
        if arguments.low_bit:
            kinds[f"{recipe}, 8 bits"] = LowBitLearner
        for name, kind in kinds.items():
            found[name] = kind, razored(dense, recipe=recipe, sparsity=arguments.sparsity)
    return found


def summarise(runs: list[dict[str, Row]]) -> list[Row]:
    """One row for each variant, over all seeds."""

    def row(name: str) -> Row:
        own, dense = [run[name] for run in runs], [run[DENSE] for run in runs]
        return {
            "variant": name,
            "scores": [one["score"] for one in own],
            "points": 100 * (mean_score(own) - mean_score(dense)),
            "stored": own[0]["stored"],
            "seconds": median_step(own),
            "time": median_step(own) / median_step(dense),
        }

    return [row(name) for name in runs[0]]


def mean_score(runs: list[Row]) -> float:
    """Of one variant, over seeds."""
    return statistics.fmean(run["score"] for run in runs)


def median_step(runs: list[Row]) -> float:
    """Seconds of one variant's steps, over seeds."""
    return statistics.median(second for run in runs for second in run["seconds"])


def print_table(rows: list[Row], study: Study, arguments: argparse.Namespace) -> None:
    """The rows, with differences and ratios to dense, in 80 columns."""
    height, width = study.size
    title = (
        f"{arguments.study}: {study.network}, {width} x {height} px, "
        f"{arguments.train_images or 'all'} training images, epochs {arguments.epochs}, "
        f"batch {study.batch}; seeds {arguments.seeds}; "
        f"sparsity {'by recipe' if arguments.sparsity is None else arguments.sparsity}; "
        f"{arguments.precision}, {arguments.device}; measured"
    )
    table = Table("variant", title=title)
    for column in (f"{study.score}, by seed", "to dense, points", "stored MiB/sample", "time"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["variant"],
            " ".join(f"{score:.3f}" for score in row["scores"]),
            f"{row['points']:+.1f}",
            f"{row['stored']:.2f} ({rows[0]['stored'] / row['stored']:.1f}x)",
            f"{row['time']:.2f}x",
        )
    Console(width=80).print(table)


def main() -> None:
    """Train and print."""
    arguments = parse_arguments()
    study = STUDIES[arguments.study]
    if arguments.size:
        study = replace(study, size=(arguments.size, arguments.size))
    try:
        rows = summarise([run(study, arguments, seed) for seed in arguments.seeds])
    except RazorError as error:
        sys.exit(f"finetune: {error}")
    print_table(rows, study, arguments)
    if arguments.json:
        content = {"setting": vars(arguments), "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1, default=str))


if __name__ == "__main__":
    main()
