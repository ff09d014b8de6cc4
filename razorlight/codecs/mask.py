"""The codec of gates: one bit an entry says whether a ReLU or dropout let the entry through."""

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
    """One bit an entry stores a boolean tensor exactly, padded to whole bytes.

    Example:
        >>> import torch
        >>> codec, passed = Mask(), torch.tensor([True, False, True, True])
        >>> codec.encode(passed)
        (tensor([13], dtype=torch.uint8),)
        >>> codec.decode(*codec.encode(passed), shape=passed.shape, dtype=torch.float32)
        tensor([1., 0., 1., 1.])
    """

    @property
    @override
    def words(self) -> str:
        return "in bits, exactly"

    @override
    def chunk_alignment(self, shape: Sequence[int]) -> int | None:
        together = 8 // math.gcd(8, math.prod(shape[1:]))  # so many samples fill whole bytes
        return None if len(shape) < 2 or shape[0] % together else together

    def rows(self, shape: Sequence[int]) -> tuple[int, int]:
        """The shape in which a mask is packed, so that the encodings of chunks can be joined."""
        together = self.chunk_alignment(shape)
        count = shape[0] // together if together else 1
        return count, math.prod(shape) // max(1, count)

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (pack_bits(x.reshape(self.rows(x.shape))),)

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return the mask: booleans, or 0 and 1 if ``dtype`` is a dtype of numbers."""
        mask = unpack_bits(stored[0], self.rows(shape)).view(shape)
        # A CPU converts uint8 to floats several times faster than booleans.
        return mask if dtype == torch.bool else mask.view(torch.uint8).to(dtype)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return (math.prod(shape) + 7) // 8 * 8
