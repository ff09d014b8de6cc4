"""The precision in which an operation runs under ``torch.autocast``."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which autocast runs matrix products and convolutions of ``x``.

    The operations of this package cast to this dtype themselves. Inside them gradients are off, so
    autocast's own cache would store a cast weight without a graph, and give it to later layers.
    """
    device = x.device.type
    eligible = x.is_floating_point() and x.dtype != torch.float64
    if eligible and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in ``dtype``. If ``x`` has that dtype, the result is ``x`` itself, with its record."""
    return x if x.dtype == dtype else x.to(dtype)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which autocast is off."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
