"""One record for each value: it lies on the tensor, for all layers that the tensor reaches."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor, nn

from razorlight.codecs import Codec, encode
from razorlight.records import Read, Record, encoded_record, in_memory, join

CHEAP = 128
"""Multiply-adds for an entry of a product that takes a CPU no longer than to encode and decode."""


@dataclass(frozen=True)
class Storage:
    """How one layer stores: its entry in the plan.

    Attributes:
        codec: for a value that has no record yet.
        shares: one record for each value: the layer reads the one that lies on its input, whoever
            made it, and leaves one on its output that derives it.
        reruns: multiply-adds for an entry of the output up to which this layer's product may be run
            again in backward, to derive the output. See :func:`leave_product`.
        through: whether the layer's own value is derived through the product that gave it, however
            many multiply-adds that takes.
    """

    codec: Codec
    shares: bool = False
    reruns: float = 0
    through: bool = False

    def __str__(self) -> str:
        return f"{self.codec}{', shared' * self.shares}{', run again' * (self.reruns > 0)}"


@dataclass(eq=False)  # a compiler sets no named tuple as a tensor's attribute
class _Tag:
    """What lies on a tensor: its record, and what the record speaks of."""

    record: Record | None
    dtype: torch.dtype
    version: int  # of all that it speaks of
    codec: Codec | None  # None for a derived record
    origin: Any  # what a product was made of, for those that need it and not its value

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # nothing lies on a copy: an empty set, which torch.load(weights_only=True) takes
        return set, ()


@torch.no_grad()
def store(
    x: Tensor,
    storage: Storage,
    dtype: torch.dtype | None = None,
    overwritten: bool = False,
    channels: int | None = None,
) -> Record:
    """The record of ``x``: the one that lies on it, or a new one, which is left there.

    The record lies on the tensor object and goes with it. An in-place change makes it void.

    Args:
        x: the value, any shape.
        storage: how to store it, and whether another layer's record will do.
        dtype: the dtype in which the operation uses ``x`` (autocast); its own by default.
        overwritten: the operation is in place, so the record may not share memory with ``x``.
        channels: as for :func:`in_memory`.
    """
    dtype = dtype or x.dtype
    if (found := find(x, storage, dtype)) is not None:
        return found
    source = origin_of(x)
    if isinstance(source, _Source):
        parts = [store(part, storage, dtype, channels=channels) for part in source.parts]
        record = source.derive(parts)
        _attach(x, record, dtype, None)
        return record
    value, codec = x.detach().to(dtype), storage.codec.of_values()
    encoded = encode(codec, in_memory(value, channels, like=x))
    if not torch.compiler.is_compiling() and (overwritten or _is_small_part(x)):
        encoded = tuple(t.clone() if t.data_ptr() == x.data_ptr() else t for t in encoded)
    record = encoded_record(encoded, x, codec, dtype, channels)
    if not torch.compiler.is_compiling():  # which finds that the same is encoded twice by itself
        _attach(x, record, dtype, storage.codec)
    return record


def _is_small_part(x: Tensor) -> bool:
    """Whether ``x`` would keep a much larger tensor alive, as one token of each sample does."""
    return x.nbytes * 4 <= x.untyped_storage().nbytes()


def find(x: Tensor, storage: Storage, dtype: torch.dtype | None = None) -> Record | None:
    """The record that lies on ``x``, read back in ``dtype``, if there is one that will do."""
    dtype = dtype or x.dtype
    if (tag := _tag(x)) is None:
        return None
    record = tag.record
    if record is None or (record.costly and not storage.through) or _is_freed(record):
        return None
    # what lies on a leaf, such as the batch, may be of another network
    alone = not storage.shares or record.pruned or _is_leaf(x)
    if alone and (tag.codec, tag.dtype) != (storage.codec, dtype):
        return None
    return record if tag.dtype == dtype else record.to(dtype)


def _is_freed(record: Record) -> bool:
    """Whether it needs weights that FSDP has sharded again since: they come back too late."""
    if torch.compiler.is_compiling():
        return False
    return any(t.numel() and not t.untyped_storage().nbytes() for t in record.tensors)


def _is_leaf(x: Tensor) -> bool:
    return not torch.compiler.is_compiling() and x.is_leaf


_on_leaves: WeakSet[_Tag] = WeakSet()


def forget_leaves() -> None:
    """Drop the records that lie on leaves, for backward has begun.

    Leaves outlive the step, and may change in a way that no version tells: a batch in memory of
    numpy, which is filled anew.
    """
    with suppress(KeyError):
        while True:
            _on_leaves.pop().record = None


def _tag(x: Tensor) -> _Tag | None:
    tag: _Tag | None = getattr(x, "_razorlight", None)
    if not tag or _has_no_version(x):
        return None
    version = _version(x, tag.record, tag.origin)
    if torch.compiler.is_compiling():
        # a compiler knows no versions while it traces, but it can be made to check them
        torch._check(tag.version == version, _changed_in_place)
        return tag
    return tag if tag.version == version else None


def _version(x: Tensor, record: Record | None, origin: Any) -> int:
    """Grows with every change in place of ``x``, and of what its record or origin hold."""
    stored = () if record is None else record.tensors
    parts = () if origin is None else origin.tensors
    versions = [t._version for t in (x, *stored, *parts) if not _has_no_version(t)]
    return sum(versions)


def _has_no_version(x: Tensor) -> bool:
    return not torch.compiler.is_compiling() and x.is_inference()


def _changed_in_place() -> str:
    return (
        "razorlight: a tensor was changed in place between two layers that share its record; "
        "torch.compile cannot follow that: use an operation that is not in place there"
    )


def leave(x: Tensor, record: Record | None, storage: Storage, origin: Any = None) -> None:
    """Leave a derived record of ``x`` on it for the layers that follow, if ``storage`` shares.

    Args:
        x: an output.
        record: of ``x``; None if it has none that backward could read.
        storage: of the layer that made ``x``.
        origin: what ``x`` was made of, to be found by :func:`origin_of`.
    """
    if storage.shares and not (record is origin is None):
        _attach(x, record, x.dtype, None, origin)


def leave_product(
    x: Tensor,
    value: Record | None,
    storage: Storage,
    function: Read,
    weight: Tensor,
    bias: Tensor | None,
    origin: Any = None,
) -> None:
    """Leave on ``x = function(value, weight, bias)`` a record that runs the product again.

    It is costly, for those alone who read through any product, unless ``storage`` says otherwise:
    then a value stays at most two products away from a stored one, and the second is cheap, such as
    the depthwise convolution of an inverted residual block. Further ones are stored themselves.

    Args:
        x: the output.
        value: the record of the input, if there is one.
        storage: of the layer that made ``x``.
        function: the product.
        weight: its entries for one output channel are as many as the multiply-adds for an entry.
        bias: of the product.
        origin: as for :func:`leave`.
    """
    again = None
    if storage.shares and value is not None and not value.pruned:
        again = value.rerun(function, weight, bias, by_sample=True)
        cheap = _is_cheap(again.products, weight[0].numel(), storage.reruns)
        again = again._replace(costly=not cheap)
    leave(x, again, storage, origin)


def _is_cheap(products: int, multiply_adds: int, most: float) -> bool:
    return products < 3 and multiply_adds <= (most if products == 1 else min(most, CHEAP))


def leave_stored(x: Tensor, record: Record, storage: Storage) -> None:
    """Leave the record that ``storage.codec`` made of ``x`` on it."""
    _attach(x, record, x.dtype, storage.codec)


def origin_of(x: Tensor) -> Any:
    """What :func:`leave` was told that ``x`` was made of.

    None if somebody waits for the gradient of ``x`` itself: who goes back to its origin passes it.
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and (x._backward_hooks or x.retains_grad):
        return None
    return tag.origin if (tag := _tag(x)) is not None else None


def one_of_several(out: Tensor) -> Tensor:
    """``out``, one of several outputs of a call, as a tensor on which a record may lie.

    A compiler tracks no attributes of such a one, but those of a view of it.
    """
    return out.view_as(out) if torch.compiler.is_compiling() else out


def no_view(out: Tensor) -> Tensor:
    """``out`` of an autograd Function such that it may be changed in place, as no view of it may.

    torch's kernels make views in some shapes, such as a Linear of ``(batch, tokens, in)``.
    """
    return torch.ops.aten._unsafe_view(out, out.shape)


class _Source(NamedTuple):
    """What a larger value was made of: it is stored there, if at all.

    Attributes:
        parts: the tensors.
        function: gives the value from the first of them, or from all as a list.
        joined: whether it takes the list.
        by_sample: as for :meth:`razorlight.records.Record.then`.
    """

    parts: Sequence[Tensor]
    function: Read
    joined: bool
    by_sample: bool

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What may not change in between."""
        return self.parts

    def derive(self, records: Sequence[Record]) -> Record:
        """The record of the value."""
        record = join(*records) if self.joined else records[0]
        return record.then(self.function, fresh=True, by_sample=self.by_sample)


def hand_on(x: Tensor, out: Tensor, function: Read | None = None, by_sample: bool = False) -> None:
    """Leave on ``out`` what lies on ``x``: as it is, or its record derived by ``function``.

    Args:
        x: a tensor.
        out: ``function(x)``, or ``x`` in another guise.
        function: that moves entries.
        by_sample: as for :meth:`razorlight.records.Record.then`.
    """
    tag = _tag(x)
    if function is None:
        if tag is not None:
            _attach(out, tag.record, tag.dtype, tag.codec, tag.origin)
    elif tag is not None and tag.record is not None and not tag.record.costly:
        _attach(out, tag.record.then(function, by_sample=by_sample), tag.dtype, None)
    elif out.numel() > x.numel():
        _attach(out, None, out.dtype, None, _Source((x,), function, False, by_sample))


def hand_on_joined(
    xs: Sequence[Tensor], out: Tensor, storage: Storage, function: Read, by_sample: bool
) -> None:
    """Leave on ``out = function(xs)`` that it can be derived from ``xs``, or their record."""
    source = _Source(tuple(xs), function, True, by_sample)
    found = [find(x, storage) for x in xs]
    records = [record for record in found if record is not None]
    known = source.derive(records) if len(records) == len(found) else None
    _attach(out, known, out.dtype, None, source)


def _attach(
    x: Tensor,
    record: Record | None,
    dtype: torch.dtype,
    codec: Codec | None,
    origin: Any = None,
) -> None:
    # a Parameter outlives the step, and its record would
    if not (isinstance(x, nn.Parameter) or _has_no_version(x)):
        tag = _Tag(record, dtype, _version(x, record, origin), codec, origin)
        x._razorlight = tag  # type: ignore[attr-defined]
        if _is_leaf(x):
            _on_leaves.add(tag)
