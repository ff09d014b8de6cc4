"""One bit an entry, for what a gate (ReLU, dropout) let through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import Codec
from razorlight.codecs.packing import pack_bits, unpack_bits


@dataclass(frozen=True)
class Mask(Codec):
    """One bit an entry: exact for a boolean tensor, padded to whole bytes (at most 7 bits)."""

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (pack_bits(x),)

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return unpack_bits(stored[0], shape)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return (math.prod(shape) + 7) // 8 * 8
