"""Memory over one training step, dense beside razor, measured and drawn.

    python tools/step_figure.py --weights assets --out docs/figures/step.png

A step is forward, backward and the update of SGD with momentum, as in tools/bench.py. Memory is
that of all live tensors: parameters, gradients, momentum, the batch, and what waits for backward.
"""

import argparse
from pathlib import Path
from typing import Any

import bench
from matplotlib.figure import Figure
from networks import AT_HAND, Trainee, fresh, razored

from razorlight import RECIPES
from razorlight.memory import StorageMeter
from razorlight.memory.meter import MIB, model_tensors

COLORS = ("#9aa0a8", "#3f51b5")
"""Of the dense curve, and of the other."""

Curve = tuple[list[float], list[float]]
"""The live MiB after each operator of forward, and of backward."""


class Recorder(StorageMeter):
    """A meter that also writes down the live MiB after each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.curve: list[float] = []

    def __torch_dispatch__(self, *args: Any, **kwargs: Any) -> Any:
        output = super().__torch_dispatch__(*args, **kwargs)
        self.curve.append(self.live / MIB)
        return output


def record(trainee: Trainee, batch: bench.Batch) -> Curve:
    """The curve of one step."""
    trainee.step(batch)  # makes the momentum buffers
    trainee.optimizer.zero_grad()
    batch = fresh(batch)
    with Recorder() as meter:
        meter.track(model_tensors(trainee.model), batch, trainee.optimizer.state)
        loss = trainee.loss(batch)
        forward = len(meter.curve)
        loss.backward()
    return meter.curve[:forward], meter.curve[forward:]


def draw(curves: dict[str, Curve], title: str, path: Path) -> None:
    """Draw the curves over the share of each phase's operators that has run."""
    figure = Figure(figsize=(6.4, 3.2), dpi=200, layout="constrained")
    axes = figure.subplots()
    for (name, phases), color in zip(curves.items(), COLORS, strict=True):
        values = [value for phase in phases for value in phase]
        places = [
            number + (i + 1) / len(phase)
            for number, phase in enumerate(phases)
            for i in range(len(phase))
        ]
        axes.fill_between(places, values, color=color, alpha=0.35, linewidth=0)
        axes.plot(places, values, color=color, linewidth=1.4)
        axes.annotate(
            f"{name}: peak {max(values):.0f} MiB",
            (1, max(values)),
            (8, 4),
            textcoords="offset points",
            weight="bold",
        )
    axes.axvline(1, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 2), ylabel="live tensors, MiB", title=title)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.set_xticks([0.5, 1.5], ["forward", "backward"])
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_small_patch14_dinov2", help="as of tools/bench.py")
    parser.add_argument("--weights", default="none", help=f"none, {AT_HAND}, or a file's path")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=112, help="of the images, in pixels")
    parser.add_argument("--recipe", choices=[*RECIPES], default="balanced")
    parser.add_argument("--out", type=Path, default=Path("step.png"), help="of the figure")
    arguments = parser.parse_args()
    defaults = {"freeze_norm": False, "warmup_steps": 0, "precision": "fp32", "device": "cpu"}
    vars(arguments).update(defaults, images=bench.default_images(arguments.model))
    dense, drawn = bench.prepare(arguments)
    batch = next(drawn)
    networks = {"dense": dense, arguments.recipe: razored(dense, recipe=arguments.recipe)}
    curves = {
        name: record(Trainee(model, bench.sgd(model, lr=0.0), "fp32"), batch)
        for name, model in networks.items()
    }
    size = f"{arguments.size} px, batch {arguments.batch}"
    draw(curves, f"One training step of {arguments.model}, {size}", arguments.out)
    for name, phases in curves.items():
        print(f"{name}: peak {max(map(max, phases)):.0f} MiB")


if __name__ == "__main__":
    main()
