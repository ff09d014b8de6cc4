"""One record for each value, attached to the tensor for all layers that the tensor reaches.

:func:`store` finds the record of a tensor, or makes one. :func:`find` only finds one. A layer
attaches the record of its output (:func:`attach_record`, :func:`attach_product`). A function that
moves entries carries the record of its input to its output (:func:`carry_record`,
:func:`carry_joined`).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor, nn

from razorlight._torch import (
    has_version,
    is_any_freed,
    is_gradient_observed,
    is_leaf,
    is_small_part,
    is_traced,
    is_unchanged,
    versions_of,
)
from razorlight.codecs import Codec
from razorlight.planning.layer_plan import CHEAP, LayerPlan
from razorlight.records.encoding import record_of
from razorlight.records.record import Record, join


class LinearOutput(NamedTuple):
    """Says that a tensor is the output of a Linear, for a scale that follows the Linear.

    Attributes:
        input: a stand-in without memory, through which the gradient flows to the input. Holding the
            input itself would keep it alive.
        weight: the weight of the Linear.
        bias: the bias of the Linear, or None.
        record: the record of the input.
        dtype: the dtype of the product.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    record: Record
    dtype: torch.dtype

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors whose in-place change makes this object void."""
        return (self.weight, *self.record.tensors)


class Rearranged(NamedTuple):
    """Says that a tensor was rearranged from smaller ones, which are stored in its place.

    Attributes:
        parts: the smaller tensors.
        function: returns the value from the first part, or from a list of all parts.
        is_joined: Whether the function takes a list of all parts.
        within_samples: Whether samples are derived one by one, as in
            :class:`razorlight.records.Derive`.
    """

    parts: Sequence[Tensor]
    function: Callable[..., Tensor]
    is_joined: bool
    within_samples: bool

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors whose in-place change makes this object void."""
        return self.parts

    def derive(self, records: Sequence[Record]) -> Record:
        """The record of the value, from the records of its parts."""
        record = join(*records) if self.is_joined else records[0]
        return record.then(self.function, returns_new=True, within_samples=self.within_samples)


MadeFrom = LinearOutput | Rearranged


@dataclass(eq=False)  # no NamedTuple: a compiler cannot set one as an attribute of a tensor
class _Attached:
    """The object that is attached to a tensor.

    Attributes:
        record: the record of the tensor's value, or None.
        dtype: the dtype of the value that the record reads.
        version: the version of the tensor, and of all tensors that the other attributes hold, at
            the time of attaching.
        codec: the codec that made the record; None for a derived record.
        made_from: says what the tensor was made from, if that is known.
    """

    record: Record | None
    dtype: torch.dtype
    version: int
    codec: Codec | None = None
    made_from: MadeFrom | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # A copy has nothing attached but an empty set, which torch.load(weights_only=True) accepts.
        return set, ()


def store(
    x: Tensor,
    plan: LayerPlan,
    dtype: torch.dtype | None = None,
    overwritten: bool = False,
    channels: int | None = None,
) -> Record:
    """The record that is attached to ``x``, or a new one, which is then attached.

    An in-place change of ``x`` makes the record void.

    Args:
        x: the value, any shape.
        plan: the plan of the layer that needs the value.
        dtype: the dtype in which the operation uses ``x`` (autocast); by default that of ``x``.
        overwritten: Whether the operation overwrites ``x``, so that the record may not share memory
            with ``x``.
        channels: the dim of the channels, as for :func:`razorlight.records.as_stored_layout`.
    """
    dtype = dtype or x.dtype
    if (found := find(x, plan, dtype)) is not None:
        return found
    source = made_from(x)
    if isinstance(source, Rearranged):
        record = source.derive([store(p, plan, dtype, channels=channels) for p in source.parts])
        _attach(x, record, dtype)
        return record
    value = x.detach()
    value = value if value.dtype == dtype else value.to(dtype)
    owner = x if overwritten or is_small_part(x) else None
    record = record_of(value, plan.codec.of_values(), dtype, channels, unshared_with=owner)
    if not is_traced():  # a compiler finds by itself that one value is encoded twice
        _attach(x, record, dtype, plan.codec)
    return record


def find(x: Tensor, plan: LayerPlan, dtype: torch.dtype | None = None) -> Record | None:
    """The record that is attached to ``x``, read in ``dtype``; None if the layer cannot use it."""
    dtype = dtype or x.dtype
    attached = _attached_to(x)
    if attached is None or attached.record is None:
        return None
    record = attached.record
    if record.is_costly and not plan.read_through_products:
        return None
    if is_any_freed(record.tensors):  # FSDP would gather weights too late
        return None
    # a record that is attached to a leaf, such as the batch, may come from another network
    only_own = not plan.shares or record.known_reader.is_pruned or is_leaf(x)
    if only_own and (attached.codec, attached.dtype) != (plan.codec, dtype):
        return None
    return record if attached.dtype == dtype else record.to(dtype)


def made_from(x: Tensor) -> MadeFrom | None:
    """What ``x`` was made from, if :func:`attach_record` was given that.

    The result is None if a hook or ``retain_grad`` asks for the gradient of ``x``: a gradient that
    flows directly to the tensors that ``x`` was made from would bypass ``x``.
    """
    if is_gradient_observed(x):
        return None
    attached = _attached_to(x)
    return None if attached is None else attached.made_from


def attach_record(
    x: Tensor, record: Record | None, plan: LayerPlan, source: MadeFrom | None = None
) -> None:
    """Attach a derived record to an output, for the layers that follow, if ``plan`` shares.

    Args:
        x: the output.
        record: the record of ``x``, or None.
        plan: the plan of the layer that made ``x``.
        source: what ``x`` was made from, for :func:`made_from` to return.
    """
    if plan.shares and not (record is None and source is None):
        _attach(x, record, x.dtype, made_from=source)


def attach_encoded(x: Tensor, record: Record, plan: LayerPlan) -> None:
    """Attach a record to ``x`` that the codec of ``plan`` encoded."""
    _attach(x, record, x.dtype, plan.codec)


def attach_product(
    x: Tensor,
    value: Record | None,
    plan: LayerPlan,
    function: Callable[..., Tensor],
    weight: Tensor,
    bias: Tensor | None,
    source: MadeFrom | None = None,
) -> None:
    """Attach to ``x = function(value, weight, bias)`` a record that runs the product again.

    The record is costly unless the plan allows the product to run again. Only layers that read
    through products use a costly record; others store the value itself. A record that is not costly
    is at most two products away from a stored value, and the second product is cheap, such as the
    depthwise convolution of an inverted residual block.

    Args:
        x: the output.
        value: the record of the input, or None.
        plan: the plan of the layer that made ``x``.
        function: computes the product.
        weight: the weight of the product. The multiply-adds for an entry of the output are as many
            as the weight's entries for one output channel.
        bias: the bias of the product, or None.
        source: what ``x`` was made from, for :func:`made_from` to return.
    """
    record = None
    if plan.shares and value is not None and not value.known_reader.is_pruned:
        record = value.recomputed(function, weight, bias, within_samples=True)
        products, cost = record.known_reader.products_away, weight.numel() // len(weight)
        most = plan.max_rerun_cost if products == 1 else min(plan.max_rerun_cost, CHEAP)
        record = Record(record.tensors, record.reader, products > 2 or cost > most)
    attach_record(x, record, plan, source)


def carry_record(
    x: Tensor,
    out: Tensor,
    function: Callable[[Tensor], Tensor] | None = None,
    within_samples: bool = False,
) -> None:
    """Attach the record of ``x`` to ``out``: unchanged, or derived by ``function``.

    Args:
        x: a tensor.
        out: ``function(x)``, or a tensor of the same value as ``x``.
        function: a function that moves entries; None if ``out`` has the same value as ``x``.
        within_samples: Whether ``function`` moves entries within their sample (dim 0) alone.
    """
    if out is x and not is_traced():  # a compiler takes it for another tensor
        return
    attached = _attached_to(x)
    record = None if attached is None else attached.record
    if function is None:
        if attached is not None:
            _attach(out, record, attached.dtype, attached.codec, attached.made_from)
    elif attached is not None and record is not None and not record.is_costly:
        _attach(out, record.then(function, within_samples=within_samples), attached.dtype)
    elif out.numel() > x.numel():
        _attach(out, None, out.dtype, made_from=Rearranged((x,), function, False, within_samples))


def carry_joined(
    xs: Sequence[Tensor],
    out: Tensor,
    plan: LayerPlan,
    function: Callable[[Sequence[Tensor]], Tensor],
    within_samples: bool,
) -> None:
    """Attach to ``out = function(xs)`` a record derived from those of ``xs``, if all have one.

    In any case :func:`store` can derive the record of ``out`` from records of ``xs`` later.
    """
    source = Rearranged(tuple(xs), function, True, within_samples)
    found = [find(x, plan) for x in xs]
    records = [record for record in found if record is not None]
    known = source.derive(records) if len(records) == len(found) else None
    _attach(out, known, out.dtype, made_from=source)


_on_leaves: WeakSet[_Attached] = WeakSet()


def forget_leaves() -> None:
    """Drop the records that are attached to leaves, because backward has begun.

    Leaves outlive the step, and their memory may change without a new version. An example is a
    batch in an array of numpy that is filled again.
    """
    if _on_leaves:
        with suppress(KeyError):
            while True:
                _on_leaves.pop().record = None


def _attach(
    x: Tensor,
    record: Record | None,
    dtype: torch.dtype,
    codec: Codec | None = None,
    made_from: MadeFrom | None = None,
) -> None:
    # A Parameter outlives the step, and so would its record.
    if isinstance(x, nn.Parameter) or not has_version(x):
        return
    attached = _Attached(record, dtype, _version(x, record, made_from), codec, made_from)
    x._razorlight = attached  # type: ignore[attr-defined]
    if is_leaf(x):
        _on_leaves.add(attached)


def _attached_to(x: Tensor) -> _Attached | None:
    """What is attached to ``x``, unless ``x`` or a tensor of the record has changed since."""
    attached: _Attached | None = getattr(x, "_razorlight", None)
    if not attached or not has_version(x):
        return None
    version = _version(x, attached.record, attached.made_from)
    return attached if is_unchanged(attached.version, version) else None


def _version(x: Tensor, record: Record | None, source: MadeFrom | None) -> int:
    stored = () if record is None else record.tensors
    parts = () if source is None else source.tensors
    return versions_of((x, *stored, *parts))
