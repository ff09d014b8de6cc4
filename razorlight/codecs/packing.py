"""Small integers packed into bytes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
"""A code of so many bits, cut into parts that fill bytes evenly: low part first."""


def pack(codes: Tensor, bits: int) -> list[Tensor]:
    """Pack codes ``(n,)`` uint8 below ``2**bits``: one uint8 tensor for each of the planes."""
    packed = []
    for plane in PLANES[bits]:
        part = codes & (2**plane - 1) if len(PLANES[bits]) > 1 else codes
        packed.append(_PACK[plane](part))
        codes = codes >> plane
    return packed


def unpack(packed: Sequence[Tensor], bits: int, n: int) -> Tensor:
    """Inverse of :func:`pack`: ``(n,)`` uint8."""
    low, codes = 0, None
    for plane, part in zip(PLANES[bits], packed, strict=True):
        values = _UNPACK[plane](part, n)
        codes = values if codes is None else codes.bitwise_or_(values << low)
        low += plane
    assert codes is not None
    return codes


def packed_bits(n: int, bits: int) -> int:
    """Bits that ``n`` codes take: each plane is filled up to whole bytes."""
    return sum(-(-n // (8 // plane)) * 8 for plane in PLANES[bits])


def pack_bits(mask: Tensor) -> Tensor:
    """Pack a boolean tensor of any shape into uint8, eight entries a byte: ``(ceil(n / 8),)``."""
    # eight bytes of 0 or 1 read as one little-endian word: the product moves bit i of byte i to
    # bit i of the top byte, and no partial sums meet on the way
    words = _fill(mask.flatten().view(torch.uint8), 8).view(torch.int64)
    return (words * 0x0102040810204080 >> 56).to(torch.uint8)


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of :func:`pack_bits`: a boolean tensor of ``shape``."""
    return _unpack_1(packed, math.prod(shape)).view(torch.bool).view(torch.Size(shape))


# Below, several codes are read as one little-endian word and moved all at once, by shifts: a pass
# over words is several times cheaper than one over strided bytes.


def _pack_1(codes: Tensor) -> Tensor:
    return pack_bits(codes)


def _unpack_1(packed: Tensor, n: int) -> Tensor:
    # looked up byte by byte, which is several times faster than taking eight bits apart
    bits = (torch.arange(256)[:, None] >> torch.arange(8) & 1).to(torch.uint8)
    words = bits.view(torch.int64).flatten().to(packed.device, non_blocking=True)
    return words.gather(0, packed.to(torch.int64)).view(torch.uint8)[:n]


def _pack_2(codes: Tensor) -> Tensor:
    words = _fill(codes, 4).view(torch.int32)
    words = words | words >> 6
    return (words | words >> 12).to(torch.uint8)


def _unpack_2(packed: Tensor, n: int) -> Tensor:
    words = packed.to(torch.int32)
    words = words | words << 12
    return ((words | words << 6) & 0x03030303).view(torch.uint8)[:n]


def _pack_4(codes: Tensor) -> Tensor:
    words = _fill(codes, 2).view(torch.int16)
    return (words | words >> 4).to(torch.uint8)


def _unpack_4(packed: Tensor, n: int) -> Tensor:
    words = packed.to(torch.int16)
    return ((words | words << 4) & 0x0F0F).view(torch.uint8)[:n]


def _pack_8(codes: Tensor) -> Tensor:
    return codes


def _unpack_8(packed: Tensor, n: int) -> Tensor:
    return packed


_PACK = {1: _pack_1, 2: _pack_2, 4: _pack_4, 8: _pack_8}
_UNPACK = {1: _unpack_1, 2: _unpack_2, 4: _unpack_4, 8: _unpack_8}


def _fill(codes: Tensor, multiple: int) -> Tensor:
    """``codes`` with zeros behind, up to a multiple."""
    missing = -codes.numel() % multiple
    return F.pad(codes, (0, missing)) if missing else codes
