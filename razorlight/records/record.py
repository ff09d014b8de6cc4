"""A record: it stands for a value until backward."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from razorlight.codecs import Elementwise
from razorlight.records.caching import Cached, in_chunks
from razorlight.records.readers import Derive, Join, Reader, ReadSamples, Same


class Record(NamedTuple):
    """Stored tensors, and the reader that gives a value back from them, exactly or nearly.

    Autograd keeps the tensors with ``save_for_backward``, so hooks, offloading and the memory meter
    see them.

    Attributes:
        tensors: the stored tensors.
        reader: the reader of the value; None in the record of no value.
        is_costly: Whether reading the value takes longer than to store the value itself.
    """

    tensors: tuple[Tensor, ...]
    reader: Reader | None
    is_costly: bool = False

    @property
    def known_reader(self) -> Reader:
        """The reader. The record must have one."""
        assert self.reader is not None
        return self.reader

    def read(self) -> Any:
        """The value."""
        return self.known_reader(*self.tensors)

    def read_then(self, function: Elementwise, *more: Tensor) -> Tensor | None:
        """``function(value, *more)``, if a kernel computes it while it decodes the value.

        Returns:
            A new tensor, or None if there is no such kernel.
        """
        return self.known_reader.then(self.tensors, function.step(*more))

    def take(self) -> tuple[Any, bool]:
        """Read the value for the last time; see :meth:`Reader.take`."""
        return self.known_reader.take(*self.tensors)

    def release(self) -> None:
        """Drop the value from the cache, because nobody reads it again."""
        if self.reader is not None:
            self.reader.release()

    def in_chunks(self, shape: Sequence[int] | None = None) -> tuple[Sequence[slice], ReadSamples]:
        """Read the value, some samples at a time if the value is large: see :func:`in_chunks`."""
        return in_chunks(self.known_reader, self.tensors, shape)

    def then(
        self,
        function: Callable[..., Any],
        *more: Tensor | None,
        returns_new: bool = False,
        within_samples: bool = False,
    ) -> "Record":
        """The record of ``function(value, *more)``; see :class:`Derive` for the arguments."""
        given = [tensor for tensor in more if tensor is not None]
        detached = [tensor.detach() if tensor.requires_grad else tensor for tensor in given]
        tensors = (*self.tensors, *detached)
        missing = tuple([i for i, tensor in enumerate(more) if tensor is None])
        count = len(self.tensors)
        reader = Derive(self.known_reader, count, function, missing, returns_new, within_samples)
        return Record(tensors, reader, self.is_costly)

    def recomputed(
        self, function: Callable[..., Any], *more: Tensor | None, within_samples: bool = False
    ) -> "Record":
        """The record of a product ``function(value, *more)``, which runs again in backward."""
        derived = self.then(function, *more, within_samples=within_samples)
        return Record(derived.tensors, Cached(derived.known_reader, is_product=True))

    def cached(self) -> "Record":
        """This record, but with a value that is read once for several readers in a row."""
        reader = self.known_reader
        return self if reader.is_cached else Record(self.tensors, Cached(reader), self.is_costly)

    def to(self, dtype: torch.dtype) -> "Record":
        """The record of the value in ``dtype``."""
        return self.then(Elementwise("cast", dtype=dtype), within_samples=True)


NOTHING = Record((), None)
"""The record of a value that no gradient needs."""


def as_it_is(x: Tensor | None) -> Record:
    """The record of ``x`` that holds ``x`` itself; of None, the record of no value."""
    return NOTHING if x is None else Record((x.detach(),), Same())


def product_of(pair: Sequence[Tensor]) -> Tensor:
    """Multiply the two values that were joined."""
    return pair[0] * pair[1]


def join(*records: Record) -> Record:
    """The record of several values. It reads a list, with None for :data:`NOTHING`."""
    tensors: list[Tensor] = []  # each only once, although several values may derive from it
    places = []
    for record in records:
        own = []
        for tensor in record.tensors:
            known = [i for i, other in enumerate(tensors) if other is tensor]
            own.append(known[0] if known else len(tensors))
            if not known:
                tensors.append(tensor)
        places.append(tuple(own))
    reader = Join(tuple(record.reader for record in records), tuple(places))
    return Record(tuple(tensors), reader, any(record.is_costly for record in records))
