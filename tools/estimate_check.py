"""What `razorlight estimate` says of a run, beside what the run measures.

    python tools/estimate_check.py
    python tools/estimate_check.py --networks "UPerNet:tu-swin_tiny_patch4_window7_224" --batch 4

Each network is trained on tiles of the Blue Marble for two batches, dense and by each recipe, by
`razorlight fit` on a CPU, with AdamW. MemoryProfiler measures what is stored and the peak of the
epoch, with the optimizer's state and step.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from razorlight.cli import main as razorlight
from razorlight.memory.meter import MIB

NETWORKS = (
    "Unet:tu-tf_efficientnet_lite0",
    "DeepLabV3Plus:resnet18",
    "Segformer:mit_b0",
    "UPerNet:tu-convnext_atto",
)
RECIPES = ("dense", "exact", "balanced", "compact", "checkpoint")

Row = dict[str, Any]


def parse_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=lambda names: names.split(","), default=NETWORKS)
    parser.add_argument("--recipes", type=lambda names: names.split(","), default=RECIPES)
    parser.add_argument("--size", type=int, default=128, help="of the tiles, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def rows_of(arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for each network and recipe."""
    for network in arguments.networks:
        for recipe in arguments.recipes:
            with tempfile.TemporaryDirectory() as folder:
                row = _row(Path(folder), network, recipe, arguments)
                yield {"network": network, "recipe": recipe, **row}


def _row(folder: Path, network: str, recipe: str, arguments: argparse.Namespace) -> Row:
    architecture, _, encoder = network.partition(":")
    config = {
        "model": {
            "class_path": "SegmentationTask",
            "init_args": {"architecture": architecture, "encoder": encoder},
        },
        "data": {
            "class_path": "BlueMarble",
            "init_args": {
                "tile_size": arguments.size,
                "batch_size": arguments.batch,
                "num_workers": 0,
            },
        },
        "razor": False if recipe == "dense" else {"recipe": recipe},
        "profiler": {"compare": False},
        "writer": False,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "limit_train_batches": 2,
            "limit_val_batches": 0,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "default_root_dir": str(folder),
        },
    }
    path, figures = folder / "config.json", folder / "figures.json"
    path.write_text(json.dumps(config))
    _run("estimate", "--config", str(path), "--recipes", recipe, "--json", str(figures))
    _run("fit", "--config", str(path))
    (estimated,) = json.loads(figures.read_text())
    (history,) = folder.rglob("memory.csv")
    with history.open(newline="") as file:
        measured = next(row for row in csv.DictReader(file) if row["phase"] == "train")
    return {
        size: {"estimated": estimated[size] / MIB, "measured": float(measured[f"{size}_mib"])}
        for size in ("stored", "peak")
    }


def _run(*words: str) -> None:
    sys.argv = ["razorlight", *words]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        status = razorlight()
    if status:
        sys.exit(f"estimate_check: razorlight {' '.join(words)} ended with status {status}")


def print_table(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The figures in MiB, and how far the estimate is off, in 80 columns."""
    title = (
        f"MiB, tiles of {arguments.size} px, batch {arguments.batch}, fp32, CPU, AdamW: estimated "
        "/ measured"
    )
    table = Table("network", "recipe", title=title)
    for size in ("stored", "peak"):
        table.add_column(size, justify="right")
        table.add_column("off", justify="right")
    for row in rows:
        cells = []
        for size in ("stored", "peak"):
            estimated, measured = row[size]["estimated"], row[size]["measured"]
            cells += [f"{estimated:.1f} / {measured:.1f}", f"{estimated / measured - 1:+.1%}"]
        table.add_row(row["network"].replace("tu-", ""), row["recipe"], *cells)
    Console(width=80, highlight=False).print(table)


def main() -> None:
    """Of the command line."""
    arguments = parse_arguments()
    rows = [*rows_of(arguments)]
    print_table(rows, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
