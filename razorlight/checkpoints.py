"""Checkpoints and weights from anywhere: read as data, never run."""

from os import PathLike
from typing import Any

import torch

from razorlight.errors import RazorError


def read_checkpoint(path: str | PathLike[str], what: str, map_location: Any = "cpu") -> Any:
    """Read what ``torch.save`` wrote, of tensors and plain values alone.

    Args:
        path: the file.
        what: the option that names it, for messages.
        map_location: as ``torch.load`` takes it.

    Raises:
        RazorError: if it cannot be read, or holds anything else, of which nothing is run.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # of any kind: whatever the parsers of zip and pickle stumble over
        lines = str(error).splitlines() or [type(error).__name__]
        gist = next((line for line in lines if "nsupported" in line), lines[0])
        raise RazorError(
            f"{what}: cannot read tensors from {path}, and ran nothing that it says "
            f"({gist.partition('. ')[0]}); give a file of tensors and plain values"
        ) from error
