"""The codec that stores every entry, as it is or cast to a narrower float."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import VALUE_DTYPES, Codec, saturating_cast, storage_dtype
from razorlight.errors import RazorError


@dataclass(frozen=True)
class Dense(Codec):
    """Keep every entry, in ``values`` precision.

    Args:
        values: "fp32", "fp16" or "bf16", but never wider than the tensor itself. None stores the
            tensor as it is.

    Raises:
        RazorError: for any other ``values``.

    Example:
        >>> import torch
        >>> codec, x = Dense("bf16"), torch.tensor([1.001, 2.0])
        >>> codec.decode(*codec.encode(x), shape=x.shape, dtype=x.dtype)
        tensor([1., 2.])
    """

    values: Literal["fp32", "fp16", "bf16"] | None = None

    @property
    @override
    def words(self) -> str:
        return "as it is" if self.values is None else f"in {self.values}"

    def __post_init__(self) -> None:
        if self.values not in (None, *VALUE_DTYPES):
            raise RazorError(f"Dense: values must be fp32, fp16 or bf16, got {self.values!r}")

    @override
    def is_identity(self, dtype: torch.dtype) -> bool:
        return self._dtype(dtype) == dtype

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (saturating_cast(x, self._dtype(x.dtype)),)

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return stored[0].to(dtype)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return math.prod(shape) * self._dtype(dtype).itemsize * 8

    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        return dtype if self.values is None else storage_dtype(dtype, self.values)
