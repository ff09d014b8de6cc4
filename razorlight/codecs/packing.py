"""Small integers packed into bytes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,), 11: (8, 2, 1)}
"""A code of so many bits, cut into parts that fill bytes evenly: low part first."""


def pack(codes: Tensor, bits: int) -> list[Tensor]:
    """Pack codes ``(..., n)`` below ``2**bits``: one uint8 tensor for each of the planes.

    Args:
        codes: uint8, or int16 for more than eight ``bits``.
        bits: of a code.
    """
    *lower, _ = PLANES[bits]
    packed = []
    for plane in lower:
        packed.append(_pack((codes & (2**plane - 1)).to(torch.uint8), plane))
        codes = codes >> plane
    return [*packed, _pack(codes.to(torch.uint8), PLANES[bits][-1])]


def unpack(packed: Sequence[Tensor], bits: int, shape: Sequence[int]) -> Tensor:
    """Inverse of :func:`pack`: ``shape`` uint8, or int16 for more than eight bits."""
    low, *higher = (
        _unpack(part, plane, shape) for plane, part in zip(PLANES[bits], packed, strict=True)
    )
    low = low.to(torch.int16) if bits > 8 else low
    shift = PLANES[bits][0]
    for plane, part in zip(PLANES[bits][1:], higher, strict=True):
        low.add_(part, alpha=2**shift)
        shift += plane
    return low


def pack_bits(mask: Tensor) -> Tensor:
    """Pack booleans ``(..., n)`` into uint8, eight entries a byte, each row to whole bytes."""
    return _pack(mask.view(torch.uint8), 1)


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of :func:`pack_bits`: a boolean tensor of ``shape``."""
    return _unpack(packed, 1, shape).view(torch.bool)


# Codes that lie far apart share a byte, the first of a row with the first of its second half: whole
# stretches of a row are then moved at once.


def _pack(codes: Tensor, plane: int) -> Tensor:
    first, *others = _in_parts(codes, 8 // plane).unbind(-2)
    for i, part in enumerate(others, 1):
        first = torch.add(first, part, alpha=1 << plane * i)
    return first.flatten()


def _unpack(packed: Tensor, plane: int, shape: Sequence[int]) -> Tensor:
    if plane == 8:
        return packed.view(torch.Size(shape))
    shifts = torch.arange(0, 8, plane, dtype=torch.uint8, device=packed.device)
    count = math.prod(shape[:-1])
    parts = packed.view(count, 1, len(packed) // max(1, count)) >> shifts[:, None]
    rows = parts.bitwise_and_(2**plane - 1).flatten(1)
    return rows[:, : shape[-1]].reshape(torch.Size(shape))


def _in_parts(codes: Tensor, count: int) -> Tensor:
    """``codes`` with zeros behind where need be, its last dim cut into so many parts."""
    missing = -codes.shape[-1] % count
    codes = F.pad(codes, (0, missing)) if missing else codes
    return codes.unflatten(-1, (count, codes.shape[-1] // count))


def packed_bits(n: int, bits: int) -> int:
    """Bits that ``n`` codes take: each plane is filled up to whole bytes."""
    return sum(-(-n // (8 // plane)) * 8 for plane in PLANES[bits])
