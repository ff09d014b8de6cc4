"""Which precision an operation runs in under ``torch.autocast``."""

import torch
from torch import Tensor


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which autocast runs matrix products and convolutions of ``x``.

    The Functions of this package cast to it themselves: autocast's own cache of cast weights,
    filled where gradients are off, would hand a later consumer a weight without a graph.
    """
    device = x.device.type
    eligible = x.is_floating_point() and x.dtype != torch.float64
    if eligible and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in ``dtype``; itself if it is so already, with the record that lies on it."""
    return x if x.dtype == dtype else x.to(dtype)
