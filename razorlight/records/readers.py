"""Readers: how a value is read back from the tensors that were stored for it.

Readers form a small tree. :class:`Same` and :class:`Decode` are its leaves. :class:`Derive`
computes one value from another. :class:`Join` reads several values. :class:`Cached` reads a value
once for several readers in a row. A reader holds no stored tensors: each reading is given them.
"""

import math
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from razorlight._torch import is_traced, when_backward_ends
from razorlight.codecs import Codec, Dense, Elementwise, Step, TopK, decode, decode_then, kernels

ReadSamples = Callable[[slice], Any]
"""Returns the part of a value that belongs to a slice of samples (dim 0)."""

ALL_SAMPLES = slice(None)


def samples_of(value: Tensor, samples: slice) -> Tensor:
    """The part of ``value`` that belongs to a slice of samples; ``value`` itself if that is all."""
    return value if samples == ALL_SAMPLES else value[samples]


class Reader(ABC):
    """Reads one value: ``reader(*stored)``.

    Attributes:
        makes_new: Whether each reading returns a new tensor, which the caller may overwrite.
        products_away: number of products that run again between stored tensors and the value.
        is_pruned: Whether entries of the value are missing. The value then serves the gradient of a
            weight, and nothing else.
        is_cached: Whether the reading starts from a cached value.
    """

    makes_new: bool = False
    products_away: int = 0
    is_pruned: bool = False
    is_cached: bool = False

    @abstractmethod
    def __call__(self, *stored: Tensor) -> Any:
        """Read the value from the tensors that were stored for it."""

    def uncached_decode(self) -> "Decode | None":
        """The reader of the codes, if the value is decoded from them alone and is not cached."""
        return None

    def take(self, *stored: Tensor) -> tuple[Any, bool]:
        """Read the value for the last time.

        Returns:
            The value, which is no longer cached, and whether the caller may overwrite the value.
        """
        return self(*stored), self.makes_new and not is_traced()

    def release(self) -> None:
        """Drop the value from the cache, because nobody reads it again."""
        return None

    def then(self, stored: Sequence[Tensor], *steps: Step) -> Tensor | None:
        """What ``steps`` make of the value, if a kernel computes it while it decodes the value.

        Args:
            stored: the tensors that were stored.
            steps: elementwise functions, one after the other.

        Returns:
            A new tensor, or None if there is no such kernel.
        """
        return None

    def by_sample(self, stored: Sequence[Tensor], wholes: list[Tensor]) -> ReadSamples:
        """Prepare to read some samples at a time.

        Args:
            stored: the tensors that were stored.
            wholes: a list to which the values that have to be read whole are appended.
        """
        whole: Tensor = self(*stored)
        wholes.append(whole)
        return partial(samples_of, whole)


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
        codec: the codec that encoded the value.
        stored_shape: the shape in which the codec saw the value.
        shape: the shape of the value.
        dtype: the dtype of the value.
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
    def uncached_decode(self) -> "Decode":
        return self

    @override
    def __call__(self, *stored: Tensor) -> Tensor:
        return self._as_value(decode(self.codec, stored, self.stored_shape, self.dtype))

    @override
    def then(self, stored: Sequence[Tensor], *steps: Step) -> Tensor | None:
        if not _may_launch(stored[0]):
            return None
        laid_out = [
            step._replace(more=tuple([self._as_stored(x) for x in step.more])) for step in steps
        ]
        out = decode_then(self.codec, stored, self.stored_shape, self.dtype, laid_out)
        return None if out is None else self._as_value(out)

    def _as_value(self, stored: Tensor) -> Tensor:
        """A tensor in the shape in which the codec saw the value, in the shape of the value."""
        if not self.channels_last:
            return stored if self.stored_shape == self.shape else stored.reshape(self.shape)
        batch, channels, *spatial = self.shape
        return stored.view(batch, *spatial, channels).movedim(-1, 1)

    def _as_stored(self, x: Tensor | None) -> Tensor | None:
        """The opposite of :meth:`_as_value`, for a tensor that broadcasts to the value."""
        if x is None:
            return None
        x = x.expand(self.shape)
        return (x.movedim(1, -1) if self.channels_last else x).reshape(self.stored_shape)


class Derive(Reader):
    """Reads ``function(value, *more)``.

    Args:
        source: the reader of the value.
        count: the number of stored tensors that belong to the source; the others are ``more``.
        function: a function that returns the derived value. It may overwrite a value that is new.
        missing: the indices of the arguments in ``more`` that are None, and not tensors.
        returns_new: Whether the function returns a new tensor. If not, the result is new only if
            the value is new.
        within_samples: Whether each sample (of dim 0) of the result follows from ``more`` and the
            same sample of the value alone.
    """

    def __init__(
        self,
        source: Reader,
        count: int,
        function: Callable[..., Any],
        missing: tuple[int, ...] = (),
        returns_new: bool = False,
        within_samples: bool = False,
    ) -> None:
        self.source, self.count, self.function, self.missing = source, count, function, missing
        self.returns_new, self.within_samples = returns_new, within_samples
        self.makes_new = returns_new or source.makes_new
        self.products_away = source.products_away
        self.is_pruned = source.is_pruned
        self.is_cached = source.is_cached

    @override
    def __call__(self, *stored: Tensor) -> Any:
        together = self._together(stored)
        if together is not None:
            return together
        return self._apply(self.source(*stored[: self.count]), stored)

    @override
    def then(self, stored: Sequence[Tensor], *steps: Step) -> Tensor | None:
        if not isinstance(self.function, Elementwise):
            return None
        step = self.function.step(*self._more(stored))
        return self.source.then(stored[: self.count], step, *steps)

    @override
    def by_sample(self, stored: Sequence[Tensor], wholes: list[Tensor]) -> ReadSamples:
        together = self._together(stored)
        if together is not None:
            wholes.append(together)
            return partial(samples_of, together)
        if not self.within_samples:
            return super().by_sample(stored, wholes)
        part = self.source.by_sample(stored[: self.count], wholes)
        return lambda samples: self._apply(part(samples), stored)

    def _together(self, stored: Sequence[Tensor]) -> Tensor | None:
        """The derived value, if a kernel computes it while it decodes."""
        if not isinstance(self.function, Elementwise) or not _may_launch(stored[0]):
            return None
        return self.then(stored)

    def _apply(self, value: Any, stored: Sequence[Tensor]) -> Any:
        return self.function(value, *self._more(stored))

    def _more(self, stored: Sequence[Tensor]) -> list[Tensor | None]:
        more: list[Tensor | None] = [*stored[self.count :]]
        for i in self.missing:
            more.insert(i, None)
        return more


def _may_launch(stored: Tensor) -> bool:
    return kernels.can_launch(stored) or is_traced()


class Join(Reader):
    """Reads several values as a list, with None for each missing reader.

    Args:
        readers: the readers of the values; None if a value is not needed.
        places: for each reader, the indices of its stored tensors.
    """

    def __init__(
        self, readers: tuple[Reader | None, ...], places: tuple[tuple[int, ...], ...]
    ) -> None:
        self.readers, self.places = readers, places
        present = [reader for reader in readers if reader is not None]
        self.products_away = max(reader.products_away for reader in present)
        self.is_pruned = any(reader.is_pruned for reader in present)
        self.is_cached = any(reader.is_cached for reader in present)

    @override
    def __call__(self, *stored: Tensor) -> list[Any]:
        return [
            None if reader is None else reader(*[stored[i] for i in places])
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

    Each thread caches one value. If the value is that of a product, the thread also caches the
    values from which the product was recomputed. Reading another value evicts them, and so does the
    end of backward. The cached value is an attribute of this reader, which belongs to the graph, so
    an aborted backward leaves nothing once its graph is gone. While a compiler traces, nothing is
    cached: the compiler finds common subexpressions by itself.

    Args:
        source: the reader of the value.
        is_product: Whether the source runs a product again.
    """

    is_cached = True

    def __init__(self, source: Reader, is_product: bool = False) -> None:
        self.source, self.is_product = source, is_product
        self.products_away = source.products_away + is_product
        self.is_pruned = source.is_pruned
        self.value: Any = None

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
    def uncached_decode(self) -> Decode | None:
        return self.source.uncached_decode() if self.value is None else None

    @override
    def take(self, *stored: Tensor) -> tuple[Any, bool]:
        value = self(*stored)
        self.release()
        return value, (self.source.makes_new or self.is_product) and not is_traced()

    @override
    def then(self, stored: Sequence[Tensor], *steps: Step) -> Tensor | None:
        # to decode once more takes less time than to write the value and read it back
        return None if self.value is not None else self.source.then(stored, *steps)

    @override
    def release(self) -> None:
        if self.value is not None:  # while a compiler traces, nothing is assigned here
            self.value = None

    @property
    def _is_input(self) -> bool:
        """Whether this is a product that can be recomputed in chunks.

        Another product may then be recomputed from its value while this value stays cached.
        """
        return self.is_product and isinstance(self.source, Derive) and self.source.within_samples

    def _read(self, stored: Sequence[Tensor]) -> Any:
        return _read_in_chunks(self.source, stored) if self._is_input else self.source(*stored)


class _Cache(threading.local):
    def __init__(self) -> None:
        self.readers: list[weakref.ref[Cached]] = []


_CACHE = _Cache()


def _evict(all_but_inputs: bool = False) -> None:
    """Drop the values that this thread caches.

    Args:
        all_but_inputs: Whether values stay from which the next value is recomputed.
    """
    if not _CACHE.readers:
        return
    cached = [reader for ref in _CACHE.readers if (reader := ref()) and reader.value is not None]
    stay = [reader for reader in cached if all_but_inputs and reader._is_input]
    for reader in cached:
        if reader not in stay:
            reader.value = None
    _CACHE.readers = [weakref.ref(reader) for reader in stay]


_DERIVED_CHUNK_ENTRIES = 2**22
"""Entries of a large value that a CPU derives at a time: enough to keep a product's kernel busy."""
_DERIVED_ON_A_GPU = 16
"""How many times as many entries other devices derive at a time: their launches cost more."""


def in_chunks(
    reader: Reader, stored: Sequence[Tensor], shape: Sequence[int] | None = None
) -> tuple[Sequence[slice], ReadSamples]:
    """Split a large value along dim 0 so that each chunk can be derived on its own.

    Args:
        reader: the reader of the value.
        stored: the tensors from which the reader reads.
        shape: the shape of the value; by default the value is taken to have as many entries as the
            largest value from which it is derived.

    Returns:
        The slices of the chunks, a single one if the value is small or cannot be split, and the
        function that reads a chunk.
    """
    if is_traced() or not (isinstance(reader, Derive) and reader.within_samples):
        value: Tensor = reader(*stored)
        return [ALL_SAMPLES], partial(samples_of, value)
    wholes: list[Tensor] = []
    read = reader.by_sample(stored, wholes)
    size = max(len(whole) for whole in wholes)
    entries = math.prod(shape) if shape else max(whole.numel() for whole in wholes)
    chunk = _DERIVED_CHUNK_ENTRIES
    if wholes[0].device.type != "cpu":
        chunk *= _DERIVED_ON_A_GPU
    if entries < 2 * chunk:
        small: Tensor = read(ALL_SAMPLES)  # now, so that the values it is derived from are freed
        return [ALL_SAMPLES], partial(samples_of, small)
    count = max(1, chunk * size // entries)
    ends = [*range(count, size, count), size]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)], read


def _read_in_chunks(reader: Reader, stored: Sequence[Tensor]) -> Tensor:
    """Read a whole value. If the value is large, the values it is derived from come in chunks."""
    chunks, read = in_chunks(reader, stored)
    first: Tensor = read(chunks[0])
    if len(chunks) == 1:
        return first
    whole = room_for(chunks, first)
    whole[chunks[0]] = first
    for samples in chunks[1:]:
        whole[samples] = read(samples)
    return whole


def room_for(chunks: Sequence[slice], first: Tensor) -> Tensor:
    """Allocate memory for all chunks. Its samples have the strides of those of ``first``.

    Args:
        chunks: the slices of all chunks.
        first: the first chunk, as a product returned it.
    """
    shape = (chunks[-1].stop, *first.shape[1:])
    return first.new_empty_strided(shape, (first[0].numel(), *first.stride()[1:]))
