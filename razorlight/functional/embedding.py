"""Embedding. Its output is derived from the indices, which are in memory anyway."""

import torch.nn.functional as F
from torch import Tensor

from razorlight.planning.layer_plan import LayerPlan
from razorlight.records import as_it_is, attach_record


def embedding(
    plan: LayerPlan,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.embedding`; the record of its output looks the output up again.

    Args:
        plan: the plan of the layer; it says whether records are shared.
        input: indices, any shape, int32 or int64.
        weight: ``(entries, width)``.
        padding_idx: index of the entry without a gradient, as in torch.
        max_norm: largest norm of an entry. If given, torch changes ``weight``, and the output has
            no record.
        norm_type: order of the norm for ``max_norm``.
        scale_grad_by_freq: Whether gradients are divided by how often their entry occurs.
        sparse: Whether the gradient of ``weight`` is sparse.

    Returns:
        ``(*input.shape, width)``, bit for bit that of torch.
    """
    out = F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if max_norm is None:
        record = as_it_is(input).then(F.embedding, weight, returns_new=True)
        attach_record(out, record, plan)
    return out
