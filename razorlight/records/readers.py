"""Readers: how a value is read back from the tensors that were stored for it.

A reader is a small tree. :class:`Same` and :class:`Decode` are its leaves; :class:`Derive` computes
one value from another, :class:`Join` reads several, and :class:`Cached` reads once for readers that
follow one another. A reader holds no tensor: those that it needs are given to each reading.
"""

import math
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from razorlight._torch import is_traced, when_backward_ends
from razorlight.codecs import Codec, Dense, TopK, decode

ReadSamples = Callable[[slice], Any]
"""Gives the part of a value that belongs to some samples (a slice of dim 0)."""


class Reader(ABC):
    """Reads one value: ``reader(*stored)``.

    Attributes:
        makes_new: Whether each reading gives a new tensor, which the caller may overwrite.
        products_away: how many products are run again on the way.
        is_pruned: Whether entries are missing: the value serves the gradient of a weight, and
            nothing else.
        is_cached: Whether the reading starts from a cached value.
    """

    makes_new: bool = False
    products_away: int = 0
    is_pruned: bool = False
    is_cached: bool = False

    @abstractmethod
    def __call__(self, *stored: Tensor) -> Any:
        """Read the value from all tensors that were stored for it."""

    def take(self, *stored: Tensor) -> tuple[Any, bool]:
        """Read a value that nobody reads after.

        Returns:
            The value, which is no longer cached, and whether the caller may overwrite it.
        """
        return self(*stored), self.makes_new and not is_traced()

    def release(self) -> None:
        """Let go of a cached value, for nobody reads it after."""
        return None

    def by_sample(self, stored: Sequence[Tensor], wholes: list[Tensor]) -> ReadSamples:
        """Prepare to read some samples at a time.

        Args:
            stored: the tensors that were stored.
            wholes: takes up the values that had to be read whole.
        """
        whole: Tensor = self(*stored)
        wholes.append(whole)
        return lambda samples: whole[samples]


@dataclass(frozen=True)
class Same(Reader):
    """Reads the one stored tensor as it is."""

    @override
    def __call__(self, *stored: Tensor) -> Tensor:
        (value,) = stored
        return value


@dataclass(frozen=True)
class Decode(Reader):
    """Reads a value that a codec encoded.

    Args:
        codec: encoded it.
        stored_shape: of the value as the codec saw it.
        shape: of the value.
        dtype: of the value.
        channels_last: Whether the codec saw the channels, dim 1 of the value, in the last dim.
    """

    codec: Codec
    stored_shape: torch.Size
    shape: torch.Size
    dtype: torch.dtype
    channels_last: bool

    @property
    @override
    def makes_new(self) -> bool:  # type: ignore[override]
        return not isinstance(self.codec, Dense)

    @property
    @override
    def is_pruned(self) -> bool:  # type: ignore[override]
        return isinstance(self.codec, TopK)

    @override
    def __call__(self, *stored: Tensor) -> Tensor:
        value = decode(self.codec, stored, self.stored_shape, self.dtype)
        if not self.channels_last:
            return value.reshape(self.shape)
        batch, channels, *spatial = self.shape
        return value.view(batch, *spatial, channels).movedim(-1, 1)


@dataclass(frozen=True)
class Derive(Reader):
    """Reads ``function(value, *more)``.

    Args:
        source: reads the value.
        count: how many of the stored tensors are the source's; the others are ``more``.
        function: gives the derived value. It may overwrite a value that is new.
        present: for each of ``more``, whether there is a tensor; else the function is given None.
        returns_new: Whether the function returns a new tensor; if not, the result is new only if
            the value was.
        within_samples: Whether a sample (of dim 0) of the result follows from that sample of the
            value alone, and ``more``.
    """

    source: Reader
    count: int
    function: Callable[..., Any]
    present: tuple[bool, ...]
    returns_new: bool
    within_samples: bool

    @property
    @override
    def makes_new(self) -> bool:  # type: ignore[override]
        return self.returns_new or self.source.makes_new

    @property
    @override
    def products_away(self) -> int:  # type: ignore[override]
        return self.source.products_away

    @property
    @override
    def is_pruned(self) -> bool:  # type: ignore[override]
        return self.source.is_pruned

    @property
    @override
    def is_cached(self) -> bool:  # type: ignore[override]
        return self.source.is_cached

    @override
    def __call__(self, *stored: Tensor) -> Any:
        return self._apply(self.source(*stored[: self.count]), stored)

    @override
    def by_sample(self, stored: Sequence[Tensor], wholes: list[Tensor]) -> ReadSamples:
        if not self.within_samples:
            return super().by_sample(stored, wholes)
        part = self.source.by_sample(stored[: self.count], wholes)
        return lambda samples: self._apply(part(samples), stored)

    def _apply(self, value: Any, stored: Sequence[Tensor]) -> Any:
        more = iter(stored[self.count :])
        return self.function(value, *(next(more) if there else None for there in self.present))


@dataclass(frozen=True)
class Join(Reader):
    """Reads several values as a list, with None where there is nothing to read.

    Args:
        readers: of the values.
        places: for each reader, which of the stored tensors are its own.
    """

    readers: tuple[Reader | None, ...]
    places: tuple[tuple[int, ...], ...]

    @property
    @override
    def products_away(self) -> int:  # type: ignore[override]
        return max(reader.products_away for reader in self._present)

    @property
    @override
    def is_pruned(self) -> bool:  # type: ignore[override]
        return any(reader.is_pruned for reader in self._present)

    @property
    @override
    def is_cached(self) -> bool:  # type: ignore[override]
        return any(reader.is_cached for reader in self._present)

    @property
    def _present(self) -> list[Reader]:
        return [reader for reader in self.readers if reader is not None]

    @override
    def __call__(self, *stored: Tensor) -> list[Any]:
        return [
            None if reader is None else reader(*(stored[i] for i in places))
            for reader, places in zip(self.readers, self.places, strict=True)
        ]

    @override
    def by_sample(self, stored: Sequence[Tensor], wholes: list[Tensor]) -> ReadSamples:
        parts = [
            _nothing if reader is None else reader.by_sample([stored[i] for i in places], wholes)
            for reader, places in zip(self.readers, self.places, strict=True)
        ]
        return lambda samples: [part(samples) for part in parts]


def _nothing(samples: slice) -> None:
    return None


class Cached(Reader):
    """Reads a value once for several readers in a row.

    Each thread caches one value, and of a product also the values that it was recomputed from.
    Reading another value evicts them, and so does the end of backward. The value lies in this
    reader, which belongs to the graph, so that an aborted backward leaves nothing once its graph is
    gone. A compiler finds the common subexpression by itself: while it traces, nothing is cached.

    Args:
        source: reads the value.
        is_product: Whether the source runs a product again.
    """

    is_cached = True

    def __init__(self, source: Reader, is_product: bool = False) -> None:
        self.source, self.is_product = source, is_product
        self.value: Any = None

    @property
    @override
    def products_away(self) -> int:  # type: ignore[override]
        return self.source.products_away + self.is_product

    @property
    @override
    def is_pruned(self) -> bool:  # type: ignore[override]
        return self.source.is_pruned

    @override
    def __call__(self, *stored: Tensor) -> Any:
        if is_traced():
            return self.source(*stored)
        if self.value is None:
            _evict()
            value = self._read(stored)
            _evict(all_but_inputs=self._is_input)
            self.value = value
            _CACHE.readers.append(weakref.ref(self))
            when_backward_ends(_evict)
        return self.value

    @override
    def take(self, *stored: Tensor) -> tuple[Any, bool]:
        value = self(*stored)
        self.release()
        return value, (self.source.makes_new or self.is_product) and not is_traced()

    @override
    def release(self) -> None:
        if self.value is not None:  # a compiler, under which nothing is cached, sees no change
            self.value = None

    @property
    def _is_input(self) -> bool:
        """Whether another product may be recomputed from the value, or the value from another."""
        return self.is_product and isinstance(self.source, Derive) and self.source.within_samples

    def _read(self, stored: Sequence[Tensor]) -> Any:
        return _read_in_pieces(self.source, stored) if self._is_input else self.source(*stored)


class _Cache(threading.local):
    def __init__(self) -> None:
        self.readers: list[weakref.ref[Cached]] = []


_CACHE = _Cache()


def _evict(all_but_inputs: bool = False) -> None:
    """Drop what this thread caches.

    Args:
        all_but_inputs: Whether the values from which the next one was recomputed stay.
    """
    cached = [reader for ref in _CACHE.readers if (reader := ref()) and reader.value is not None]
    stay = [reader for reader in cached if all_but_inputs and reader._is_input]
    for reader in cached:
        if reader not in stay:
            reader.value = None
    _CACHE.readers = [weakref.ref(reader) for reader in stay]


_PIECE = 2**22
"""Entries of a large value that are derived at a time: enough for a product's kernel."""


def in_pieces(
    reader: Reader, stored: Sequence[Tensor], shape: Sequence[int] | None = None
) -> tuple[Sequence[slice], ReadSamples]:
    """Split a large value along dim 0 so that each slice can be derived on its own.

    Args:
        reader: of the value.
        stored: the tensors that it reads from.
        shape: of the value; by default it has as many entries as what it is derived from.

    Returns:
        The slices, a single one if there is nothing to gain, and the function that reads each.
    """
    if is_traced() or not (isinstance(reader, Derive) and reader.within_samples):
        value: Tensor = reader(*stored)
        return [slice(None)], lambda samples: value[samples]
    wholes: list[Tensor] = []
    read = reader.by_sample(stored, wholes)
    size = max(len(whole) for whole in wholes)
    entries = math.prod(shape) if shape else max(whole.numel() for whole in wholes)
    if entries < 2 * _PIECE:
        small: Tensor = read(slice(None))  # now, so that what it is derived from can go
        return [slice(None)], lambda samples: small[samples]
    count = max(1, _PIECE * size // entries)
    ends = [*range(count, size, count), size]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)], read


def _read_in_pieces(reader: Reader, stored: Sequence[Tensor]) -> Tensor:
    """Read a value whole, but what it is derived from in pieces, if it is large."""
    pieces, read = in_pieces(reader, stored)
    first: Tensor = read(pieces[0])
    if len(pieces) == 1:
        return first
    whole = room_for(pieces, first)
    whole[pieces[0]] = first
    for samples in pieces[1:]:
        whole[samples] = read(samples)
    return whole


def room_for(pieces: Sequence[slice], first: Tensor) -> Tensor:
    """Memory for all pieces, whose samples lie as those of ``first``, the output of a product."""
    shape = (pieces[-1].stop, *first.shape[1:])
    return first.new_empty_strided(shape, (first[0].numel(), *first.stride()[1:]))
