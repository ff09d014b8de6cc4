"""Names and lists that the files of several packages need."""

from functools import partial

import torch
import torch.nn.functional as F

from razorlight.functional.spellings import TorchFunction
from razorlight.layers import registry

# A forward may call only some of these functions: an attention is fused, or runs in several steps.
register = partial(registry.register, alternatives=True)

ATTENTION: list[TorchFunction] = [
    F.scaled_dot_product_attention,  # in one step
    F.softmax,  # in several steps, with matmul
    torch.matmul,
]
MULTIPLY: list[TorchFunction] = [torch.mul]
RMS_NORM: list[TorchFunction] = [F.rms_norm]


def paths(module: str, *names: str) -> list[str]:
    """The paths of classes of one module."""
    return [f"{module}.{name}" for name in names]
