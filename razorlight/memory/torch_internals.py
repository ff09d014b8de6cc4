"""The private names of torch that meters and callbacks use; none is used elsewhere in these.

torch has no public function that goes through nested containers, no public base class for a mode
that sees every operator, and no public way to the indices of a sparse tensor as they are stored.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

__all__ = [
    "CPU_KERNELS",
    "TorchDispatchMode",
    "is_traceable_wrapper_subclass",
    "sparse_parts",
    "tree_leaves",
]

CPU_KERNELS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
"""Chooses an operator's kernel for the CPU."""


def sparse_parts(tensor: Tensor) -> list[Tensor]:
    """The indices and values of a tensor of layout ``sparse_coo``, coalesced or not."""
    return [tensor._indices(), tensor._values()]
