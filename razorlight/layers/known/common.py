"""What several packages have in common."""

from functools import partial

import torch
import torch.nn.functional as F

from razorlight.layers import registry
from razorlight.layers.registry import TorchFunction

register = partial(registry.register, alternatives=True)  # some call none, such as dropout of 0

ATTENTION: list[TorchFunction] = [
    F.scaled_dot_product_attention,  # fused
    F.softmax,  # and in single steps
    torch.matmul,
]
MULTIPLY: list[TorchFunction] = [torch.mul]
RMS_NORM: list[TorchFunction] = [F.rms_norm]


def paths(module: str, *names: str) -> list[str]:
    """The paths of classes of one module."""
    return [f"{module}.{name}" for name in names]
