"""``razorlight preview``: what training would see, as a picture."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from razorlight.cli.parsed_run import DataOfRun, Options
from razorlight.errors import RazorError

OPTIONS: Options = {
    "--count": {"type": int, "default": 12, "help": "pictures (default: 12)"},
    "--out": {"type": str, "default": "preview.png", "help": "file of the picture"},
}


def run(args: Sequence[str]) -> None:
    """Draw augmented training images with their targets.

    Args:
        args: the options of ``fit``, and :data:`OPTIONS`.

    Raises:
        RazorError: if the data are missing, or cannot be used, or for a count below 1.
    """
    run = DataOfRun("preview", args, OPTIONS)
    data, count = run.data, run.config["count"]
    if count < 1:
        raise RazorError(f"preview: count is {count}; it must be 1 or more")
    data.find("fit")
    batches = [*islice(data.train_dataloader(), -(-count // data.batch_size))]
    images, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    out = Path(run.config["out"])
    data.plot((images, targets), count).savefig(out, format="png")
    print(f"{min(count, len(images))} training images, as the network sees them: {out}")
