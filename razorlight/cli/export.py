"""``razorlight export``: the network of a checkpoint, as a file of its own."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from razorlight.checkpoints import read_checkpoint
from razorlight.errors import RazorError
from razorlight.files import replaced

_NET = "net."
"""The prefix of the names of the network's tensors, in every task."""


def export_network(checkpoint: Path, out: Path) -> str:
    """Write the network of a checkpoint as plain tensors, which timm or smp load strictly.

    The tensors are those of ``state_dict``, which ``razorlight test`` scores too. They are averages
    if training averaged weights (Lightning's ``WeightAveraging``, ``EMAWeightAveraging``).

    Args:
        checkpoint: checkpoint of one of razorlight's tasks. No code in it is run.
        out: path of the new file, in the safetensors format.

    Returns:
        One line on the file that was written.

    Raises:
        RazorError: if there is no such file, it is no checkpoint of a task, or ``out`` exists.
    """
    if out.exists():
        raise RazorError(f"export: {out} exists already; give another --out, or move it away")
    net = _network(checkpoint)
    with replaced(out) as new:
        new.touch()  # where this fails, the error of safetensors does not say why
        save_file(net, new, metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in net.values()) / 2**20
    return f"{out}: {len(net)} tensors, {size:.1f} MiB"


def _network(checkpoint: Path) -> dict[str, Tensor]:
    state = _read(checkpoint).get("state_dict", {})
    net = {name.removeprefix(_NET): t for name, t in state.items() if name.startswith(_NET)}
    if not net:
        raise RazorError(
            f"export: {checkpoint} holds no network of a task (names that begin with {_NET!r}); "
            "give a checkpoint that `razorlight fit` wrote"
        )
    # safetensors refuses tensors that share memory or are not contiguous
    return {name: t.clone(memory_format=torch.contiguous_format) for name, t in net.items()}


def _read(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise RazorError(f"export: there is no file {checkpoint}")
    content = read_checkpoint(checkpoint, "export")
    return content if isinstance(content, dict) else {}
