"""Records: what a value leaves behind for backward."""

import math
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.distributed.tensor import DTensor

from razorlight.codecs import Codec, Dense, TopK, decode, encode
from razorlight.errors import RazorError

Read = Callable[..., Any]


class Record(NamedTuple):
    """A value that backward gets back: ``read(*tensors)``, exactly or nearly.

    Autograd Functions take the tensors as inputs and keep them by ``save_for_backward``, so that
    hooks, offloading and the meter see them; ``read`` holds no tensor.

    Attributes:
        tensors: what is stored.
        read: gives the value from them.
        products: how many products are run again on the way.
        fresh: whether each reading gives a new tensor, which its reader may overwrite.
        kept: whether reading starts from a value that is kept for the next reader.
        pruned: whether entries are missing: good for the gradient of a weight, and nothing else.
        costly: whether reading it takes longer than it would to store the value.
    """

    tensors: tuple[Tensor, ...]
    read: Read | None
    products: int = 0
    fresh: bool = False
    kept: bool = False
    pruned: bool = False
    costly: bool = False

    def then(
        self,
        function: Read,
        *more: Tensor | None,
        fresh: bool = False,
        by_sample: bool = False,
    ) -> "Record":
        """The record of ``function(value, *more)``.

        Args:
            function: gives the derived value; it may overwrite a fresh one.
            more: tensors that it needs besides.
            fresh: whether it makes a new tensor; if not, the derived value is one as it was before.
            by_sample: whether a sample (of dim 0) follows from that sample alone, and ``more``.
        """
        assert self.read is not None
        given = [tensor.detach() if tensor is not None else None for tensor in more]
        tensors = (*self.tensors, *(tensor for tensor in given if tensor is not None))
        present = tuple(tensor is not None for tensor in given)
        then = _then_by_sample if by_sample else _then
        read = partial(then, self.read, len(self.tensors), function, present)
        return self._replace(tensors=tensors, read=read, fresh=self.fresh or fresh)

    def rerun(self, function: Read, *more: Tensor | None, by_sample: bool = False) -> "Record":
        """The record of a product ``function(value, *more)``, run once for successive readers.

        Args:
            function: gives a new tensor.
            more: as for :meth:`then`.
            by_sample: as for :meth:`then`; what is large is then run in pieces.
        """
        derived = self.then(function, *more, by_sample=by_sample)
        assert derived.read is not None
        read = partial(_piece_by_piece, derived.read) if by_sample else derived.read
        once = kept(read, fresh=True, stays=by_sample)
        return Record(derived.tensors, once, self.products + 1, kept=True)

    def for_neighbours(self) -> "Record":
        """This record, read once for readers that follow one another in backward."""
        if self.kept:
            return self
        return self._replace(read=kept(self.read, self.fresh), fresh=False, kept=True)

    def to(self, dtype: torch.dtype) -> "Record":
        """The record of the value in ``dtype``."""
        return self.then(partial(_to, dtype=dtype), by_sample=True)


_PIECE = 2**22
"""Entries of a large value that are derived at a time: enough for a product's kernel."""

NOTHING = Record((), None)  # for a value that no gradient needs


def _then(read: Read, count: int, function: Read, present: Sequence[bool], *tensors: Tensor) -> Any:
    return _apply(function, read(*tensors[:count]), present, tensors[count:])


def _apply(function: Read, value: Any, present: Sequence[bool], tensors: Sequence[Tensor]) -> Any:
    more = iter(tensors)
    return function(value, *(next(more) if there else None for there in present))


def _then_by_sample(*args: Any) -> Any:  # told apart by :func:`in_pieces`
    return _then(*args)


def _to(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype)


def as_it_is(x: Tensor | None) -> Record:
    """The record of ``x`` that holds ``x`` itself; of None, that of no value."""
    return NOTHING if x is None else Record((x.detach(),), _identity)


def _identity(x: Tensor) -> Tensor:
    return x


def product_of(pair: Sequence[Tensor]) -> Tensor:
    """The product of two values that were joined."""
    return pair[0] * pair[1]


def join(*records: Record) -> Record:
    """One record of several values: it reads back a list, with None for :data:`NOTHING`."""
    tensors: list[Tensor] = []  # each once, though several values may derive from it
    readers = []
    for record in records:
        places = []
        for tensor in record.tensors:
            known = [i for i, other in enumerate(tensors) if other is tensor]
            places.append(known[0] if known else len(tensors))
            if not known:
                tensors.append(tensor)
        readers.append((record.read, places))
    return Record(
        tuple(tensors),
        partial(_read_all, readers),
        max(record.products for record in records),
        kept=any(record.kept for record in records),
        pruned=any(record.pruned for record in records),
        costly=any(record.costly for record in records),
    )


def _read_all(
    readers: list[tuple[Read | None, list[int]]], *tensors: Tensor
) -> list[Tensor | None]:
    return [read(*(tensors[i] for i in places)) if read else None for read, places in readers]


def kept(read: Read | None, fresh: bool, stays: bool = False) -> Read:
    """``read``, whose last value stays for the next reader of the same backward.

    Args:
        read: gives a value.
        fresh: whether as a new tensor, which :func:`read_last` hands over.
        stays: whether also while another value that stays is derived from it.
    """
    assert read is not None
    # a compiler sees the common subexpression by itself
    return read if torch.compiler.is_compiling() else _Kept(read, fresh, stays)


def read_last(read: Read, stored: Sequence[Tensor]) -> tuple[Any, bool]:
    """Read a value that nobody reads after.

    Returns:
        The value, which is no longer kept, and whether it is the reader's to overwrite.
    """
    value = read(*stored)
    release(read)
    return value, isinstance(read, _Kept) and read.fresh


def release(read: Read | None) -> None:
    """Let go of a value that is kept, for nobody reads it after."""
    if isinstance(read, _Kept):
        read.value = None


def in_pieces(
    read: Read, stored: Sequence[Tensor], shape: Sequence[int] | None = None
) -> tuple[Sequence[slice], Callable[[slice], Tensor]]:
    """Cut a value into samples (of dim 0) that are derived for themselves, if it is large.

    Args:
        read: of its record.
        stored: by its record.
        shape: of the value; if not given, as many entries as what it is derived from.

    Returns:
        The slices, one if there is nothing to gain, and what gives the value of each.
    """
    if torch.compiler.is_compiling() or not _is(read, _then_by_sample):
        value: Tensor = read(*stored)
        return [slice(None)], lambda samples: value[samples]
    sources: list[Tensor] = []
    derive = _by_sample(read, stored, sources)
    size = max(len(source) for source in sources)
    entries = math.prod(shape) if shape else max(source.numel() for source in sources)
    if entries < 2 * _PIECE:
        whole: Tensor = derive(slice(None))  # now, so that what it is derived from can go
        return [slice(None)], lambda samples: whole[samples]
    count = max(1, _PIECE * size // entries)
    ends = [*range(count, size, count), size]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)], derive


def _by_sample(
    read: Read, stored: Sequence[Tensor], sources: list[Tensor]
) -> Callable[[slice], Any]:
    """What gives a value of some samples, and in ``sources`` what is read whole for it."""
    if _is(read, _then_by_sample):
        inner, count, function, present = read.args
        part, more = _by_sample(inner, stored[:count], sources), stored[count:]
        return lambda samples: _apply(function, part(samples), present, more)
    if _is(read, _read_all):
        parts = [
            _by_sample(reader, [stored[i] for i in places], sources)
            for reader, places in read.args[0]
        ]
        return lambda samples: [part(samples) for part in parts]
    source: Tensor = read(*stored)
    sources.append(source)
    return lambda samples: source[samples]


def _is(read: Read, function: Read) -> TypeGuard[partial[Any]]:
    return isinstance(read, partial) and read.func is function


def _piece_by_piece(read: Read, *stored: Tensor) -> Tensor:
    pieces, value = in_pieces(read, stored)
    first = value(pieces[0])
    if len(pieces) == 1:
        return first
    whole = room_for(pieces, first)
    whole[pieces[0]] = first
    for samples in pieces[1:]:
        whole[samples] = value(samples)
    return whole


def room_for(pieces: Sequence[slice], first: Tensor) -> Tensor:
    """Memory for all pieces, whose samples lie as those of ``first``, the output of a product."""
    shape = (pieces[-1].stop, *first.shape[1:])
    return first.new_empty_strided(shape, (first[0].numel(), *first.stride()[1:]))


class _Kept:
    """Reads a value that is expensive to derive once for several readers in a row.

    At most one value is kept in a thread, and with a product those that it was derived from: the
    next one that is read takes their place, and the end of backward drops them. They lie here, with
    the graph that owns them, so that an aborted backward leaves nothing once its graph is gone.
    """

    _latest = threading.local()

    def __init__(self, read: Read, fresh: bool, stays: bool) -> None:
        self._read, self.fresh, self._stays, self.value = read, fresh, stays, None

    def __call__(self, *tensors: Tensor) -> Any:
        if self.value is None:
            _Kept.drop()
            value = self._read(*tensors)
            _Kept.drop(but_staying=self._stays)
            self.value = value
            _Kept._latest.owners.append(weakref.ref(self))
            Variable._execution_engine.queue_callback(_Kept.drop)
        return self.value

    @staticmethod
    def drop(but_staying: bool = False) -> None:
        kept = [owner for ref in getattr(_Kept._latest, "owners", ()) if (owner := ref())]
        stay = [owner for owner in kept if but_staying and owner._stays]
        for owner in kept:
            if owner not in stay:
                owner.value = None
        _Kept._latest.owners = [weakref.ref(owner) for owner in stay]


def in_memory(x: Tensor, channels: int | None = None, like: Tensor | None = None) -> Tensor:
    """``x`` as it lies in memory, its tokens or places in dim -2.

    Args:
        x: any value; of less than two dims, it is seen as one token.
        channels: the dim that holds its channels. 1: ``(batch, channels, *spatial)`` is seen as
            ``(batch, channels, places, 1)``, or as ``(batch, places, channels)`` where its channels
            lie last. -1: ``(batch, *tokens, channels)`` is seen as ``(batch, tokens, channels)``.
            None: ``x`` as it is.
        like: as this one lies; ``x`` itself by default.

    Raises:
        RazorError: for a DTensor, of which each process holds a part.
    """
    if isinstance(x, DTensor):
        raise RazorError(
            "a tensor that is spread over processes (DTensor, of tensor or sequence parallelism) "
            "cannot be stored: leave the layers that compute on such dense, with exclude=[...]"
        )
    like = x if like is None else like
    if like.ndim < 2:
        return x.reshape(1, -1)
    if like.ndim < 3 or not like.numel():
        return x
    if like.is_contiguous():
        if channels == -1:
            return x if x.ndim == 3 else x.flatten(1, -2)
        return x if channels is None else x.reshape(*x.shape[:2], -1, 1)
    form = _CHANNELS_LAST.get(like.ndim)
    if channels != 1 or form is None or not like.is_contiguous(memory_format=form):
        return x
    return x.movedim(1, -1).flatten(1, -2)


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _channels_last(value: Tensor, shape: torch.Size) -> Tensor:
    batch, channels, *spatial = shape
    return value.view(batch, *spatial, channels).movedim(-1, 1)


def encoded_record(
    encoded: Sequence[Tensor],
    x: Tensor,
    codec: Codec,
    dtype: torch.dtype,
    channels: int | None = None,
) -> Record:
    """The record of a value in ``dtype`` from its encoding :func:`in_memory`.

    Args:
        encoded: what ``codec`` made of the value.
        x: a tensor of the value's shape and memory format.
        codec: that encoded it.
        dtype: of the value.
        channels: as for :func:`in_memory`.
    """
    lying = in_memory(x, channels)
    turned = lying.ndim < x.ndim and not x.is_contiguous()
    back = _channels_last if turned else torch.reshape
    read = partial(_decode, codec, lying.shape, dtype, partial(back, shape=x.shape))
    fresh, pruned = not isinstance(codec, Dense), isinstance(codec, TopK)
    return Record(tuple(encoded), read, fresh=fresh, pruned=pruned)


@torch.no_grad()
def record_of(
    x: Tensor,
    codec: Codec,
    dtype: torch.dtype,
    channels: int | None = None,
    of: Callable[[Tensor], Tensor] | None = None,
) -> Record:
    """Encode ``x``, or ``of(x)``, entry by entry; its record gives it back in ``dtype``."""
    return encoded_record(encode(codec, in_memory(x, channels), of), x, codec, dtype, channels)


def _decode(
    codec: Codec, shape: torch.Size, dtype: torch.dtype, back: Read, *stored: Tensor
) -> Tensor:
    value: Tensor = back(decode(codec, stored, shape, dtype))
    return value
