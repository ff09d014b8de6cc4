"""One record for each value: it is attached to the tensor, for all layers that the tensor reaches.

:func:`store` gives the record of a tensor, :func:`find` only one that is there. A layer attaches
the record of its output (:func:`attach_record`, :func:`attach_product`), and what moves entries
about carries records on (:func:`carry_record`, :func:`carry_joined`).
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
    is_freed,
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
    """What a Linear's output was made from, for a scale that follows the Linear.

    Attributes:
        input: a stand-in without memory through which the gradient flows. Holding the input itself
            would keep it alive.
        weight: of the Linear.
        bias: of the Linear.
        record: of the input.
        dtype: of the product.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    record: Record
    dtype: torch.dtype

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors that may not change in between."""
        return (self.weight, *self.record.tensors)


class Rearranged(NamedTuple):
    """What a larger value was made from: the parts are stored in its place, if at all.

    Attributes:
        parts: the tensors.
        function: gives the value from the first part, or from all parts as a list.
        is_joined: Whether the function takes the list.
        within_samples: as for :class:`razorlight.records.Derive`.
    """

    parts: Sequence[Tensor]
    function: Callable[..., Tensor]
    is_joined: bool
    within_samples: bool

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors that may not change in between."""
        return self.parts

    def derive(self, records: Sequence[Record]) -> Record:
        """The record of the value, from those of its parts."""
        record = join(*records) if self.is_joined else records[0]
        return record.then(self.function, returns_new=True, within_samples=self.within_samples)


MadeFrom = LinearOutput | Rearranged


@dataclass(eq=False)  # a compiler sets no named tuple as a tensor's attribute
class _Attached:
    """What is attached to a tensor.

    Attributes:
        record: of the tensor, if it has one.
        dtype: of the value that the record gives.
        version: of the tensor and all that the record speaks of, when it was attached.
        codec: made the record; None for a derived one.
        made_from: what the tensor was made from, for those who need that and not its value.
    """

    record: Record | None
    dtype: torch.dtype
    version: int
    codec: Codec | None = None
    made_from: MadeFrom | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # a copy has nothing attached: an empty set, which torch.load(weights_only=True) takes
        return set, ()


@torch.no_grad()
def store(
    x: Tensor,
    plan: LayerPlan,
    dtype: torch.dtype | None = None,
    overwritten: bool = False,
    channels: int | None = None,
) -> Record:
    """The record of ``x``: the one that is attached to it, or a new one, which is attached.

    An in-place change of the tensor makes the record void.

    Args:
        x: the value, any shape.
        plan: how to store it, and whether another layer's record will do.
        dtype: in which the operation uses ``x`` (autocast); its own by default.
        overwritten: Whether the operation is in place, so that the record may not share memory
            with ``x``.
        channels: as for :func:`razorlight.records.as_stored_layout`.
    """
    dtype = dtype or x.dtype
    if (found := find(x, plan, dtype)) is not None:
        return found
    source = made_from(x)
    if isinstance(source, Rearranged):
        record = source.derive([store(p, plan, dtype, channels=channels) for p in source.parts])
        _attach(x, record, dtype)
        return record
    value = x.detach().to(dtype)
    owner = x if overwritten or is_small_part(x) else None
    record = record_of(value, plan.codec.of_values(), dtype, channels, unshared_with=owner)
    if not is_traced():  # a compiler finds by itself that the same is encoded twice
        _attach(x, record, dtype, plan.codec)
    return record


def find(x: Tensor, plan: LayerPlan, dtype: torch.dtype | None = None) -> Record | None:
    """The record that is attached to ``x``, read in ``dtype``, if there is one that will do."""
    dtype = dtype or x.dtype
    attached = _attached_to(x)
    if attached is None or attached.record is None:
        return None
    record = attached.record
    if record.is_costly and not plan.read_through_products:
        return None
    if any(is_freed(tensor) for tensor in record.tensors):  # weights that come back too late
        return None
    # what is attached to a leaf, such as the batch, may be of another network
    only_own = not plan.shares or record.known_reader.is_pruned or is_leaf(x)
    if only_own and (attached.codec, attached.dtype) != (plan.codec, dtype):
        return None
    return record if attached.dtype == dtype else record.to(dtype)


def made_from(x: Tensor) -> MadeFrom | None:
    """What ``x`` was made from, as :func:`attach_record` was told.

    None if somebody waits for the gradient of ``x`` itself: a gradient that goes back to what ``x``
    was made from passes it by.
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
        record: of ``x``; None if it has none that backward could read.
        plan: of the layer that made ``x``.
        source: what ``x`` was made from, to be found by :func:`made_from`.
    """
    if plan.shares and not (record is None and source is None):
        _attach(x, record, x.dtype, made_from=source)


def attach_encoded(x: Tensor, record: Record, plan: LayerPlan) -> None:
    """Attach the record that the codec of ``plan`` made of ``x``."""
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

    The record is costly, for those alone who read through products, unless the plan allows the
    product to be run again. Then a value stays at most two products away from a stored one, and the
    second product is cheap, such as the depthwise convolution of an inverted residual block. Values
    farther away are stored themselves.

    Args:
        x: the output.
        value: the record of the input, if there is one.
        plan: of the layer that made ``x``.
        function: the product.
        weight: its entries for one output channel are as many as the multiply-adds for an entry.
        bias: of the product.
        source: as for :func:`attach_record`.
    """
    record = None
    if plan.shares and value is not None and not value.known_reader.is_pruned:
        record = value.recomputed(function, weight, bias, within_samples=True)
        products, cost = record.known_reader.products_away, weight[0].numel()
        most = plan.max_rerun_cost if products == 1 else min(plan.max_rerun_cost, CHEAP)
        record = record._replace(is_costly=products > 2 or cost > most)
    attach_record(x, record, plan, source)


def carry_record(
    x: Tensor,
    out: Tensor,
    function: Callable[[Tensor], Tensor] | None = None,
    within_samples: bool = False,
) -> None:
    """Attach to ``out`` what is attached to ``x``: as it is, or derived by ``function``.

    Args:
        x: a tensor.
        out: ``function(x)``, or ``x`` as another tensor object.
        function: moves entries.
        within_samples: as for :class:`razorlight.records.Derive`.
    """
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
    """Attach to ``out = function(xs)`` that it is derived from ``xs``, or from their records."""
    source = Rearranged(tuple(xs), function, True, within_samples)
    found = [find(x, plan) for x in xs]
    records = [record for record in found if record is not None]
    known = source.derive(records) if len(records) == len(found) else None
    _attach(out, known, out.dtype, made_from=source)


_on_leaves: WeakSet[_Attached] = WeakSet()


def forget_leaves() -> None:
    """Drop the records that are attached to leaves, for backward has begun.

    Leaves outlive the step, and may change in a way that no version tells: a batch in memory of
    numpy, which is filled anew.
    """
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
    # a Parameter outlives the step, and so would its record
    if isinstance(x, nn.Parameter) or not has_version(x):
        return
    attached = _Attached(record, dtype, _version(x, record, made_from), codec, made_from)
    x._razorlight = attached  # type: ignore[attr-defined]
    if is_leaf(x):
        _on_leaves.add(attached)


def _attached_to(x: Tensor) -> _Attached | None:
    """What is attached to ``x``, if it and all that the record speaks of are unchanged since."""
    attached: _Attached | None = getattr(x, "_razorlight", None)
    if not attached or not has_version(x):
        return None
    version = _version(x, attached.record, attached.made_from)
    return attached if is_unchanged(attached.version, version) else None


def _version(x: Tensor, record: Record | None, source: MadeFrom | None) -> int:
    stored = () if record is None else record.tensors
    parts = () if source is None else source.tensors
    return versions_of((x, *stored, *parts))
