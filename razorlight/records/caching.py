"""How a value is read once for several readers in a row, and how a large one is read in chunks."""

import math
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from typing_extensions import override

from razorlight._torch import is_cpu, is_fake, is_traced, standing_for, when_backward_ends
from razorlight.codecs import Step
from razorlight.records.readers import (
    ALL_SAMPLES,
    Decode,
    Derive,
    Reader,
    ReadSamples,
    samples_of,
)


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
    if not is_cpu(wholes[0].device):
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
    if is_fake(stored[0]):
        with standing_for(len(chunks)):
            part: Tensor = read(chunks[0])
        return part if len(chunks) == 1 else room_for(chunks, part)
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
