"""Dense, checkpointed and razor training steps of one network, side by side in one process.

    python tools/bench.py --model vit_small_patch14_dinov2 --weights assets
    python tools/bench.py --model mobilenetv2_100 --batch 8 --freeze-norm
    python tools/bench.py --model Unet:tu-tf_efficientnet_lite0 --weights assets
    python tools/bench.py --recipes balanced --codec '{"codec": "uniform", "bits": 4}'

A step is forward, backward and the update of SGD with momentum. Stored: bytes alive between forward
and backward beside parameters, buffers and inputs, for each sample. Peak: of a whole step, with
parameters, gradients and momentum. Time: the ratio of medians to dense, of whole steps that
alternate. Cosine: of the whole gradient to the dense one, the lowest over batches, with the head as
it is and once more after it alone was trained for some steps of Adam. Worst: the lowest of those of
single weight matrices and kernels, with its name.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from networks import (
    ASSETS,
    AT_HAND,
    CAMVID_CLASSES,
    CIFAR10_CLASSES,
    Batch,
    CamVidImages,
    Cifar10Subset,
    Trainee,
    build,
    checkpointed,
    dense_name,
    fresh,
    is_segmentation,
    normalisation,
    razored,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from razorlight import RECIPES, RazorError, comparison
from razorlight.memory import meter_for, storage_bytes
from razorlight.memory.meter import MIB, model_tensors

RANDOM = "random"

Row = dict[str, Any]


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments ``given``, or those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="vit_tiny_patch16_224", help="of timm, or Architecture:encoder of smp"
    )
    parser.add_argument(
        "--weights", default="none", help=f"none, {AT_HAND} for real ones at hand, or a file's path"
    )
    parser.add_argument(
        "--images",
        choices=["cifar10", "camvid", RANDOM],
        help="to classify, to segment, or noise; those of the assets unless they are absent",
    )
    parser.add_argument("--warmup-steps", type=int, default=0, help="dense SGD steps beforehand")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument(
        "--recipes", type=lambda names: names.split(","), default=[*RECIPES], help="a,b,..."
    )
    parser.add_argument("--sparsity", type=float, help="in place of each recipe's own")
    parser.add_argument("--codec", type=json.loads, help="one more: this codec where it fits")
    parser.add_argument("--freeze-norm", action="store_true", help="batch norms in eval, frozen")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each")
    parser.add_argument("--batches", type=int, default=10, help="on which gradients are compared")
    parser.add_argument("--head-steps", type=int, default=10, help="of Adam, before once more")
    parser.add_argument("--no-time", action="store_true", help="memory and gradients only")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    arguments = parser.parse_args(given)
    arguments.images = arguments.images or default_images(arguments.model)
    return arguments


def default_images(model: str) -> str:
    """The real images that fit the network, or noise where there are none."""
    if not ASSETS.is_dir():
        return RANDOM
    return "camvid" if is_segmentation(model) else "cifar10"


def batches(arguments: argparse.Namespace) -> Iterator[Batch]:
    """Training batches, without end.

    Raises:
        RazorError: if the images are absent, or labelled for another kind of network.
    """
    size, chosen = arguments.size, arguments.images
    if chosen == RANDOM:
        return noise(arguments)
    if (chosen == "camvid") != is_segmentation(arguments.model):
        raise RazorError(
            f"--images {chosen} do not fit {arguments.model}: cifar10 is to classify, "
            "camvid to segment"
        )
    kwargs = {"batch_size": arguments.batch, **normalisation(arguments.model)}
    data = (CamVidImages if chosen == "camvid" else Cifar10Subset)((size, size), **kwargs)
    data.setup("fit")
    return cycle(data.train_dataloader())


def noise(arguments: argparse.Namespace) -> Iterator[Batch]:
    """Random images with random labels, in the place of real ones."""
    batch, size = arguments.batch, arguments.size
    segmentation = is_segmentation(arguments.model)
    shape = (batch, size, size) if segmentation else (batch,)
    classes = len(CAMVID_CLASSES if segmentation else CIFAR10_CLASSES)
    while True:
        yield torch.randn(batch, 3, size, size), torch.randint(classes, shape)


def prepare(arguments: argparse.Namespace) -> tuple[nn.Module, Iterator[Batch]]:
    """The dense network after its warm-up, and batches."""
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    model = build(arguments.model, arguments.size, arguments.weights).to(device)
    if arguments.freeze_norm:
        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval().requires_grad_(False)
    warm_up = Trainee(model, sgd(model, lr=0.01), arguments.precision)
    drawn = (move_data_to_device(batch, device) for batch in batches(arguments))
    for number, batch in enumerate(islice(drawn, arguments.warmup_steps)):
        warm_up.step(batch, seed=number)
    return model, drawn


def sgd(model: nn.Module, lr: float) -> torch.optim.SGD:
    """The optimizer of every step."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def variants(dense: nn.Module, arguments: argparse.Namespace) -> dict[str, nn.Module]:
    """The network as it is, checkpointed where timm can, by each recipe, and by ``--codec``."""
    models = {"dense": dense}
    with suppress(AssertionError):
        models["checkpointing"] = checkpointed(dense)
    for recipe in arguments.recipes:
        models[recipe] = razored(dense, recipe=recipe, sparsity=arguments.sparsity)
    if arguments.codec:
        models["--codec"] = razored(dense, overrides={"*": arguments.codec})
    return models


def peak_of_step(trainee: Trainee, batch: Batch) -> int:
    """Highest bytes alive in a whole step, with all that the model and the optimizer hold."""
    trainee.step(batch)  # makes the momentum buffers
    trainee.optimizer.zero_grad()
    batch = fresh(batch)
    held = (model_tensors(trainee.model), batch, trainee.optimizer.state)
    with meter_for(trainee.device) as meter:
        meter.track(held)
        others = meter.live - storage_bytes(held)
        trainee.step(batch)
    return meter.peak - others


def time_ratios(trainees: dict[str, Trainee], batch: Batch, repeats: int) -> dict[str, float]:
    """Time of a whole step against dense: medians of ``repeats`` alternating runs of each."""
    rounds = [{n: t.step(batch) for n, t in trainees.items()} for _ in range(repeats + 1)]
    # the first is not counted
    medians = {name: statistics.median(r[name] for r in rounds[1:]) for name in trainees}
    return {name: median / medians["dense"] for name, median in medians.items()}


def gradients(trainee: Trainee, batch: Batch) -> dict[str, Tensor]:
    """The gradient of each parameter that has one, by the dense network's names."""
    trainee.optimizer.zero_grad()
    trainee.loss(batch).backward()
    parameters = trainee.model.named_parameters()
    found = {dense_name(name): p.grad for name, p in parameters if p.grad is not None}
    trainee.optimizer.zero_grad()
    return found


def train_head(trainee: Trainee, drawn: Iterator[Batch], steps: int) -> None:
    """Train the classifier, or the segmentation head, for some steps of Adam at its usual rate."""
    model: Any = trainee.model
    head = model.segmentation_head if hasattr(model, "decoder") else model.get_classifier()
    adam = Trainee(model, torch.optim.Adam(head.parameters()), trainee.precision)
    for number, batch in enumerate(islice(drawn, steps)):
        adam.step(batch, seed=number)


def compare_gradients(
    trainees: dict[str, Trainee], drawn: Iterator[Batch], count: int
) -> dict[str, list[dict[str, float]]]:
    """The cosines to the dense gradients, for each variant on each of ``count`` batches."""
    state = trainees["dense"].model.state_dict()
    for trainee in trainees.values():
        trainee.model.load_state_dict(state)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trainees}
    for batch in islice(drawn, count):
        reference = gradients(trainees["dense"], batch)
        for name, trainee in trainees.items():
            found[name].append(cosines(gradients(trainee, fresh(batch)), reference))
    return found


WHOLE = "whole"


def cosines(found: dict[str, Tensor], dense: dict[str, Tensor]) -> dict[str, float]:
    """Cosines to the dense gradient: of the whole, and of each matrix and kernel that has one."""
    compared = comparison.compare_gradients(found, dense)
    return {WHOLE: compared["cosine"], **compared["cosines"]}


def lowest(found: list[dict[str, float]]) -> Row:
    """The lowest of what was compared, and the name of the matrix that has it."""
    names = [name for name in found[0] if all(name in row for row in found)]
    by_name = {name: min(row[name] for row in found) for name in names}
    whole = by_name.pop(WHOLE)
    worst = min(by_name, key=by_name.__getitem__)
    return {"cosine": whole, "worst": by_name[worst], "worst matrix": worst}


def measure(arguments: argparse.Namespace) -> list[Row]:
    """One row for each variant.

    Raises:
        RazorError: for a network, weights, images or a recipe that cannot be had.
    """
    return compare(*prepare(arguments), arguments)


def compare(dense: nn.Module, drawn: Iterator[Batch], arguments: argparse.Namespace) -> list[Row]:
    """As :func:`measure`, for a network and batches that are there."""
    batch = next(drawn)
    trainees = {
        # at a rate of 0 an update does all its work and changes nothing
        name: Trainee(model, sgd(model, lr=0.0), arguments.precision)
        for name, model in variants(dense, arguments).items()
    }
    times = {} if arguments.no_time else time_ratios(trainees, batch, arguments.repeats)
    memory: dict[str, Row] = {
        name: {
            "stored": trainee.stored_per_sample(batch),
            "peak": peak_of_step(trainee, batch) / MIB,
            "time": times.get(name),
        }
        for name, trainee in trainees.items()
    }
    drawn = chain([batch], drawn)
    compared = compare_gradients(trainees, drawn, arguments.batches)
    if arguments.head_steps:
        train_head(trainees["dense"], drawn, arguments.head_steps)
        again = compare_gradients(trainees, drawn, arguments.batches)
        compared = {name: compared[name] + again[name] for name in compared}
    return [{"variant": name} | row | lowest(compared[name]) for name, row in memory.items()]


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The rows, stored and peak with their ratios to dense, in 80 columns."""
    title = (
        f"{arguments.model}, weights {arguments.weights}, {arguments.warmup_steps} warm-up steps, "
        f"BatchNorm {'frozen' if arguments.freeze_norm else 'trained'}; images {arguments.images}, "
        f"{arguments.size} px, batch {arguments.batch}; "
        f"sparsity {'by recipe' if arguments.sparsity is None else arguments.sparsity}; "
        f"{arguments.precision}, {arguments.device}; measured"
    )
    table = Table("variant", title=title)
    for column in ("stored MiB/sample", "peak MiB", "time", "cosine (worst)"):
        table.add_column(column, justify="right")
    dense = rows[0]
    for row in rows:
        table.add_row(
            row["variant"],
            f"{row['stored']:.2f} ({dense['stored'] / row['stored']:.1f}x)",
            f"{row['peak']:.0f} ({dense['peak'] / row['peak']:.1f}x)",
            f"{row['time']:.2f}x" if row["time"] else "-",
            f"{row['cosine']:.3f} ({row['worst']:.3f})",
        )
    console = Console(width=80, highlight=False)
    console.print(table)
    for row in rows[1:]:
        console.print(f"worst by {row['variant']}: {row['worst']:.3f}, {row['worst matrix']}")


def run(
    name: str,
    arguments: argparse.Namespace,
    measure: Callable[[argparse.Namespace], list[Row]],
    print_table: Callable[[list[Row], argparse.Namespace], None],
) -> None:
    """Measure and print, and write ``--json``; or say in a line what cannot be measured."""
    try:
        rows = measure(arguments)
    except RazorError as error:
        sys.exit(f"{name}: {error}")
    print_table(rows, arguments)
    if arguments.json:
        content = {"setting": vars(arguments), "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1, default=str))


def main() -> None:
    """Of the command line."""
    run("bench", parse_arguments(), measure, print_table)


if __name__ == "__main__":
    main()
