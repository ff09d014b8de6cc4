"""Dense, checkpointed and razor training steps of one network, side by side in one process.

    python tools/bench.py --model vit_tiny_patch16_224 --batch 8
    python tools/bench.py --model mobilenetv2_100 --batch 8 --freeze-norm
    python tools/bench.py --codec '{"codec": "uniform", "bits": 4}'

Stored: bytes alive between forward and backward beside parameters, buffers and inputs, for each
sample. Peak: of forward and backward, with parameters and gradients. Time: the ratio of medians to
dense, of runs that alternate. Cosine: of the whole gradient to the dense one, and the mean of those
of the single weight matrices and kernels.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from razorlight import RECIPES, razor_
from razorlight.memory import measure_step

MIB = 2**20
Row = dict[str, str | float]


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a timm model")
    parser.add_argument("--weights", type=Path, help="safetensors for it, heads may differ")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--codec", type=json.loads, help="one more: this codec where it fits")
    parser.add_argument("--freeze-norm", action="store_true", help="batch norms in eval, frozen")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def build(arguments: argparse.Namespace) -> nn.Module:
    """The dense network, in training mode."""
    sized = {"img_size": arguments.size} if "vit" in arguments.model else {}
    model = timm.create_model(arguments.model, num_classes=10, **sized).train()
    if arguments.weights:
        weights = timm.models.vision_transformer.checkpoint_filter_fn(
            load_file(arguments.weights), model
        )
        model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)
    for layer in model.modules():
        if arguments.freeze_norm and isinstance(layer, _BatchNorm):
            layer.eval().requires_grad_(False)
    return model


def variants(dense: nn.Module, arguments: argparse.Namespace) -> dict[str, nn.Module]:
    """The network as it is, checkpointed where timm can, by each recipe, and by ``--codec``."""
    models = {"dense": dense}
    if hasattr(dense, "set_grad_checkpointing"):
        models["checkpointing"] = copy.deepcopy(dense)
        models["checkpointing"].set_grad_checkpointing()
    for recipe in RECIPES:
        models[recipe] = copy.deepcopy(dense)
        razor_(models[recipe], recipe, arguments.sparsity)
    if arguments.codec:
        models["--codec"] = copy.deepcopy(dense)
        razor_(models["--codec"], overrides={"*": arguments.codec})
    return models


def gradient(model: nn.Module, step: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The gradient of each parameter, flat."""
    model.zero_grad()
    step().backward()
    gradients = {n: p.grad.flatten() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


def cosines(gradients: dict[str, Tensor], dense: dict[str, Tensor], model: nn.Module) -> Row:
    """Cosine to the dense gradient: the whole, and the mean over weight matrices and kernels."""
    kernels = [name for name, p in model.named_parameters() if p.ndim > 1 and name in dense]
    single = [F.cosine_similarity(gradients[n], dense[n], dim=0).item() for n in kernels]
    whole = F.cosine_similarity(
        torch.cat([gradients[n] for n in dense]).double(),
        torch.cat(list(dense.values())).double(),
        dim=0,
    )
    return {"cosine": whole.item(), "mean cosine": statistics.fmean(single)}


def time_steps(steps: dict[str, Callable[[], Tensor]], repeats: int, device: str) -> dict[str, Row]:
    """Seconds of forward and backward: the median of ``repeats`` alternating runs of each."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):  # the first is not counted
        for name, step in steps.items():
            start = time.perf_counter()
            step().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {name: {"time": median / medians["dense"]} for name, median in medians.items()}


def measure(arguments: argparse.Namespace) -> list[Row]:
    """One row for each variant."""
    torch.manual_seed(0)
    device = arguments.device
    models = variants(build(arguments).to(device), arguments)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=device)
    labels = torch.randint(10, (arguments.batch,), device=device)

    def stepper(model: nn.Module) -> Callable[[], Tensor]:
        def step() -> Tensor:
            with torch.autocast(device, torch.bfloat16, enabled=arguments.precision == "bf16"):
                return F.cross_entropy(model(images), labels)

        return step

    steps = {name: stepper(model) for name, model in models.items()}
    reference = gradient(models["dense"], steps["dense"])
    times = time_steps(steps, arguments.repeats, device)
    rows: list[Row] = []
    for name, model in models.items():
        memory = measure_step(model, steps[name], (images, labels))
        rows.append(
            {
                "variant": name,
                "stored": memory.stored / MIB / arguments.batch,
                "peak": memory.peak / MIB,
                **times[name],
                **cosines(gradient(model, steps[name]), reference, model),
            }
        )
    return rows


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The rows, stored and peak with their ratios to dense, in 80 columns."""
    title = (
        f"{arguments.model}, {arguments.size} px, batch {arguments.batch}, "
        f"{arguments.precision}, {arguments.device}; measured"
    )
    table = Table("variant", title=title)
    for column in ("stored MiB/sample", "peak MiB", "time", "cosine (mean)"):
        table.add_column(column, justify="right")
    dense = rows[0]
    for row in rows:
        table.add_row(
            str(row["variant"]),
            f"{row['stored']:.2f} ({dense['stored'] / row['stored']:.1f}x)",
            f"{row['peak']:.0f} ({dense['peak'] / row['peak']:.1f}x)",
            f"{row['time']:.2f}x",
            f"{row['cosine']:.3f} ({row['mean cosine']:.3f})",
        )
    Console(width=80).print(table)


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    rows = measure(arguments)
    print_table(rows, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
