"""Readers: how a value is read back from the tensors that were stored for it.

Readers form a small tree. :class:`Same` and :class:`Decode` are its leaves. :class:`Derive`
computes one value from another. :class:`Join` reads several values. A reader holds no stored
tensors: each reading is given them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from razorlight._torch import is_traced
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


@dataclass(eq=False)
class Same(Reader):
    """Reads the one stored tensor as it is."""

    @override
    def __call__(self, *stored: Tensor) -> Tensor:
        (value,) = stored
        return value


@dataclass(eq=False)
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
