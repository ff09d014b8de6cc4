"""Records: what a value leaves behind for backward."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from razorlight.codecs import Codec


class Record(NamedTuple):
    """A stored value: ``read(*tensors)`` gives (an approximation of) it back.

    Autograd Functions take the tensors as inputs and keep them by ``save_for_backward``, so that
    hooks, offloading and the meter see them; ``read`` holds no tensor.
    """

    tensors: tuple[Tensor, ...]
    read: Callable[..., Any] | None


NOTHING = Record((), None)  # for a value that no gradient needs


def join(*records: Record) -> Record:
    """One record of several values: it reads back a list, with None for :data:`NOTHING`."""
    tensors = tuple(tensor for record in records for tensor in record.tensors)
    readers = [(record.read, len(record.tensors)) for record in records]
    return Record(tensors, partial(_read_all, readers=readers))


def _read_all(
    *tensors: Tensor, readers: list[tuple[Callable[..., Tensor] | None, int]]
) -> list[Tensor | None]:
    values, start = [], 0
    for read, count in readers:
        values.append(read(*tensors[start : start + count]) if read else None)
        start += count
    return values


class _Key(NamedTuple):
    """What a record on a tensor speaks of: it is void once any of these differs."""

    codec: Codec
    dtype: torch.dtype
    version: int


def reader(x: Tensor, codec: Codec, dtype: torch.dtype) -> Callable[..., Tensor]:
    """The function that gives ``x`` back in ``dtype`` from ``codec.encode(x)``."""
    return partial(codec.decode, shape=x.shape, dtype=dtype)


@torch.no_grad()
def store(
    x: Tensor, codec: Codec, dtype: torch.dtype | None = None, overwritten: bool = False
) -> Record:
    """Record ``x``, or find the record that another consumer of the same tensor made.

    The record lies on the tensor object and goes with it. An in-place change makes it void.

    Args:
        x: the value, any shape.
        codec: how to store it.
        dtype: the dtype in which the operation uses ``x`` (autocast); its own by default.
        overwritten: the operation is in place, so the record may not share memory with ``x``.
    """
    dtype = dtype or x.dtype
    if (found := _find(x, codec, dtype)) is not None:
        return found
    value = x.detach().to(dtype)
    encoded = codec.encode(value)
    if overwritten:
        encoded = tuple(tensor.clone() if tensor is value else tensor for tensor in encoded)
    record = Record(encoded, reader(x, codec, dtype))
    attach(x, record, codec, dtype)
    return record


def attach(x: Tensor, record: Record, codec: Codec, dtype: torch.dtype) -> None:
    """Leave ``record`` of ``x``, read back in ``dtype``, on it for its other consumers."""
    # a Parameter outlives the step, and its record would; while Dynamo traces there are no versions
    if torch.compiler.is_compiling() or isinstance(x, nn.Parameter) or x.is_inference():
        return
    x._razorlight = (_Key(codec, dtype, x._version), record)  # type: ignore[attr-defined]


def _find(x: Tensor, codec: Codec, dtype: torch.dtype) -> Record | None:
    if torch.compiler.is_compiling() or x.is_inference():
        return None
    key, record = getattr(x, "_razorlight", (None, None))
    return record if key == _Key(codec, dtype, x._version) else None
