"""How the kernels of this package are launched."""

from typing import Any

import torch
from torch import Tensor

from razorlight._torch import is_fake


def launch(kernel: Any, programs: int, like: Tensor, *arguments: Any, **constants: Any) -> None:
    """Run a Triton kernel. On fake tensors, which hold nothing, none runs.

    Args:
        kernel: the kernel.
        programs: the number of its programs.
        like: a tensor on the device where the kernel runs.
        *arguments: what the kernel is given.
        **constants: what the kernel is compiled with.
    """
    if is_fake(like):
        return
    with torch.cuda.device_of(like):  # Triton launches on the current device
        kernel[(programs,)](*arguments, **constants)
