"""Embedding: its output follows from the indices, which are held anyway."""

import torch.nn.functional as F
from torch import Tensor

from razorlight.records import Record
from razorlight.sharing import Storage, leave


def embedding(
    storage: Storage,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.embedding`; whoever needs its output looks it up again.

    Args:
        storage: whether records are shared.
        input: indices, any shape, int32 or int64.
        weight: ``(entries, width)``.
        padding_idx: as in torch, like the rest.
        max_norm: if given, torch changes ``weight``, and the output has no record.
        norm_type: of ``max_norm``.
        scale_grad_by_freq: divide gradients by how often an entry is drawn.
        sparse: make the gradient of ``weight`` sparse.

    Returns:
        ``(*input.shape, width)``, bit for bit that of torch.
    """
    out = F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if max_norm is None:
        leave(out, Record((input, weight.detach()), F.embedding, fresh=True), storage)
    return out
