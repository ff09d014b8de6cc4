"""Small integers packed into bytes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,), 11: (8, 2, 1)}
"""For each number of bits, the widths of the planes into which a code is cut, lowest bits first.

The codes of one plane fill bytes evenly.
"""


def pack(codes: Tensor, bits: int) -> list[Tensor]:
    """Pack codes ``(..., n)`` below ``2**bits`` into one uint8 tensor for each plane.

    Args:
        codes: uint8, or int16 for more than eight ``bits``.
        bits: the bits of a code; a key of :data:`PLANES`.
    """
    *lower, _ = PLANES[bits]
    packed = []
    for plane in lower:
        packed.append(_pack((codes & (2**plane - 1)).to(torch.uint8), plane))
        codes = codes >> plane
    return [*packed, _pack(codes.to(torch.uint8), PLANES[bits][-1])]


def unpack(packed: Sequence[Tensor], bits: int, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pack`. The codes have ``shape``, in uint8, or int16 for more than eight bits."""
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
    """Pack booleans ``(..., n)`` into uint8, eight entries a byte; each row fills whole bytes."""
    return _pack(mask.view(torch.uint8), 1)


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pack_bits`. The result is a boolean tensor of ``shape``."""
    return _unpack(packed, 1, shape).view(torch.bool)


# A row is cut into equal parts, and the codes at the same position of all parts share a byte. So
# whole parts of a row can be shifted and added at once.


def _pack(codes: Tensor, plane: int) -> Tensor:
    first, *others = _in_parts(codes, 8 // plane).unbind(-2)
    for i, part in enumerate(others, 1):
        first = torch.add(first, part, alpha=1 << plane * i)
    return first.flatten()


def _unpack(packed: Tensor, plane: int, shape: Sequence[int]) -> Tensor:
    if plane == 8:
        return packed.view(torch.Size(shape))
    count = math.prod(shape[:-1])
    parts = packed.view(count, 1, len(packed) // max(1, count)) >> _shifts(plane, packed)
    codes = parts.bitwise_and_(2**plane - 1)
    if parts.shape[1] * parts.shape[2] > shape[-1]:
        codes = codes.flatten(1)[:, : shape[-1]]
    return codes.reshape(torch.Size(shape))


def _make_shifts(plane: int, device: torch.device) -> Tensor:
    return torch.arange(0, 8, plane, dtype=torch.uint8, device=device)[:, None]


# made here, so that no step is measured to make them
_ON_CPU = {plane: _make_shifts(plane, torch.device("cpu")) for plane in (1, 2, 4)}


def _shifts(plane: int, packed: Tensor) -> Tensor:
    """The places of the codes in a byte, lowest first, ``(codes, 1)``, on the device of the bytes.

    A fake tensor may not meet a real one.
    """
    is_real = type(packed) is Tensor and packed.device.type == "cpu"
    return _ON_CPU[plane] if is_real else _make_shifts(plane, packed.device)


def _in_parts(codes: Tensor, count: int) -> Tensor:
    """Cut the last dim of ``codes`` into ``count`` parts, after zeros were appended if need be."""
    missing = -codes.shape[-1] % count
    codes = F.pad(codes, (0, missing)) if missing else codes
    return codes.view(*codes.shape[:-1], count, codes.shape[-1] // count)


def packed_bits(n: int, bits: int) -> int:
    """The number of bits that ``n`` codes take. Each plane is padded to whole bytes."""
    return sum(-(-n // (8 // plane)) * 8 for plane in PLANES[bits])
