"""Back Razor's codec: keep the entries of largest magnitude, restore the rest as zeros."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import (
    VALUE_DTYPES,
    Codec,
    saturating_cast,
    storage_dtype,
)
from razorlight.codecs.packing import pack_bits, unpack_bits
from razorlight.errors import RazorError

BLOCK = 256  # entries whose position fits uint8


@dataclass(frozen=True)
class TopK(Codec):
    """Keep the largest ``1 - sparsity`` of the entries by magnitude (Jiang et al., NeurIPS 2022).

    The number of entries kept is exact even if magnitudes are equal, so shapes are static and
    nothing waits for the device. Of n entries, k are kept:

    * With scope "sample" (as published), all entries of a sample (dim 0) compete. A sample stores a
      bitmap of n bits, and k values.
    * With scope "block", each 256 consecutive entries compete. A block stores a uint8 position and
      a value for each entry kept, or a bitmap if that is smaller (below 87.5 % sparsity).

    Args:
        sparsity: share of the entries that is pruned, in [0, 1). At least one entry is kept.
        scope: the entries that compete: "sample" or "block".
        values: precision of the values: "fp32", "fp16", "bf16", never wider than the tensor itself,
            or "int8" (symmetric, with one scale in float32 for each sample, or in float16 for each
            block).

    Raises:
        RazorError: for any other argument.

    Example:
        >>> import torch
        >>> codec, x = TopK(sparsity=0.5), torch.tensor([1.0, -4.0, 2.0, 3.0])
        >>> codec.decode(*codec.encode(x), shape=x.shape, dtype=x.dtype)
        tensor([ 0., -4.,  0.,  3.])
    """

    sparsity: float = 0.9
    scope: Literal["sample", "block"] = "sample"
    values: Literal["fp32", "fp16", "bf16", "int8"] = "fp16"

    @property
    @override
    def words(self) -> str:
        return f"{1 - self.sparsity:.0%} of each {self.scope}, in {self.values}"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise RazorError(f"TopK: sparsity must be in [0, 1), got {self.sparsity}")
        if self.scope not in ("sample", "block"):
            raise RazorError(f"TopK: scope must be sample or block, got {self.scope!r}")
        if self.values not in (*VALUE_DTYPES, "int8"):
            raise RazorError(f"TopK: values must be fp32, fp16, bf16 or int8, got {self.values!r}")

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        rows = self._as_rows(x)
        index = self._largest(rows)
        if self._stores_index:
            return (index.to(torch.uint8), *self._pack_values(rows.gather(1, index)))
        index = index.sort(dim=1).values  # the order in which a bitmap returns the entries
        mask = torch.zeros(rows.shape, dtype=torch.bool, device=x.device)
        mask.scatter_(1, index, True)
        return (pack_bits(mask.flatten()), *self._pack_values(rows.gather(1, index)))

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        where, *packed = stored
        kept = self._unpack_values(packed, dtype)
        rows = kept.new_zeros(self._rows_shape(shape))
        if self._stores_index:
            rows.scatter_(1, where.to(torch.int64), kept)
        else:
            rows.masked_scatter_(unpack_bits(where, [rows.numel()]).view_as(rows), kept)
        return rows.flatten()[: math.prod(shape)].view(shape)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        rows, n = self._rows_shape(shape)
        kept = rows * self._count(n)
        where = kept * 8 if self._stores_index else -(-rows * n // 8) * 8
        if self.values == "int8":
            return where + kept * 8 + rows * self._scale_dtype.itemsize * 8
        return where + kept * storage_dtype(dtype, self.values).itemsize * 8

    @property
    def _stores_index(self) -> bool:
        return self.scope == "block" and self._count(BLOCK) * 8 < BLOCK

    @property
    def _scale_dtype(self) -> torch.dtype:
        return torch.float32 if self.scope == "sample" else torch.float16

    def _largest(self, rows: Tensor) -> Tensor:
        """The positions of the entries to keep in each row, in any order."""
        n = rows.shape[1]
        if (k := self._count(n)) == n:
            return torch.arange(n, device=rows.device).expand_as(rows)
        return rows.abs().topk(k, dim=1, sorted=False).indices

    def _count(self, n: int) -> int:
        return min(n, max(1, round(n * (1 - self.sparsity))))

    def _rows_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        n = math.prod(shape)
        if self.scope == "block":
            return -(-n // BLOCK), BLOCK
        if not n:
            return 0, 1
        rows = shape[0] if len(shape) > 1 else 1
        return rows, n // rows

    def _as_rows(self, x: Tensor) -> Tensor:
        flat = x.flatten()
        rows = self._rows_shape(x.shape)
        if padding := math.prod(rows) - flat.numel():
            flat = torch.cat([flat, flat.new_zeros(padding)])
        return flat.view(rows)

    def _pack_values(self, kept: Tensor) -> tuple[Tensor, ...]:
        if self.values != "int8":
            return (saturating_cast(kept, storage_dtype(kept.dtype, self.values)),)
        scale = kept.abs().amax(dim=1, keepdim=True).float() / 127
        # The scale is rounded to its stored dtype first, so that decoding uses the same scale.
        scale = saturating_cast(scale, self._scale_dtype)
        codes = kept.float() / scale.float().clamp(min=torch.finfo(self._scale_dtype).tiny)
        return codes.round().clamp(-127, 127).to(torch.int8), scale

    def _unpack_values(self, packed: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        if self.values != "int8":
            return packed[0].to(dtype)
        codes, scale = packed
        return (codes * scale.float()).to(dtype)
