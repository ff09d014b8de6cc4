"""A training step on fake tensors: which kernels it would launch, and what each reads and writes.

Fake tensors have shapes and no memory, so a step of any size is traced in seconds and computes
nothing. :class:`StepTrace` sees the operators below autograd. Each is booked as one :class:`Call`,
which reads its inputs and writes its outputs. Views and allocations are free.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import count, groupby
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, UntypedStorage
from torch.utils.flop_counter import conv_flop_count, flop_registry

from razorlight._torch import TorchDispatchMode, tree_leaves
from razorlight.memory.meter import StorageMeter

aten = torch.ops.aten

ALLOCATIONS = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.empty_permuted,
    aten.new_empty,
    aten.new_empty_strided,
    aten.scalar_tensor,  # a number of the program, which a kernel gets as an argument
}
OVERWRITING = {aten.copy_, aten.fill_, aten.zero_, aten.bernoulli_, aten.normal_, aten.uniform_}
"""Operators that change their first argument and do not read it before."""

READ_TWICE: dict[Any, tuple[int, ...]] = {
    aten.native_batch_norm: (0,),
    aten.native_batch_norm_backward: (0, 1),
    aten.native_group_norm: (0,),
    aten.native_group_norm_backward: (0, 1),
    aten.native_layer_norm_backward: (0, 1),
}
"""The arguments that a norm reads once for sums, and once more to use these sums."""


def gradients_of_convolution(
    grad: Tensor, x: Tensor, weight: Tensor, *options: Any, out_val: Any
) -> int:
    """The products of ``aten.convolution_backward``: those of the forward for each gradient.

    Torch's own count takes grouped convolutions for full ones.
    """
    *_, transposed, _, _, wanted = options
    forward = conv_flop_count(x.shape, weight.shape, grad.shape, transposed)
    return forward * sum(wanted[:2])


FLOPS = flop_registry | {
    aten.convolution_backward: gradients_of_convolution,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        aten._scaled_dot_product_flash_attention
    ],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
"""Torch's own counts of products; those of attention also by the name that it has on a CPU."""


class Access(NamedTuple):
    """Some bytes of one storage.

    Attributes:
        storage: a number that no other storage of the trace has.
        offset: of the first entry, in entries.
        size: bytes, without the repetitions of an expanded tensor.
        capacity: bytes of the whole storage.
    """

    storage: int
    offset: int
    size: int
    capacity: int


def total_bytes(accesses: Iterable[Access]) -> int:
    """Bytes of all accesses. Equal ones count once, and a storage at most as a whole."""
    by_storage: dict[int, list[Access]] = {}
    for access in set(accesses):
        by_storage.setdefault(access.storage, []).append(access)
    return sum(min(sum(a.size for a in some), some[0].capacity) for some in by_storage.values())


@dataclass(frozen=True)
class Call:
    """What is launched together.

    Attributes:
        name: of the operator.
        reads: what is read.
        writes: what is written.
        read_again: what is read a second time.
        flops: two for each multiply-add; 0 if the call is no product.
        launches: the number of kernels.
        is_opaque: Whether no compiler looks into the call, and joins it with its neighbours.
    """

    name: str
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    read_again: tuple[Access, ...] = ()
    flops: int = 0
    launches: int = 1
    is_opaque: bool = False

    @property
    def bytes(self) -> int:
        """Bytes that move between the GPU and its memory."""
        return total_bytes(self.reads) + total_bytes(self.writes) + total_bytes(self.read_again)

    @property
    def is_light(self) -> bool:
        """Whether a compiler may join the call with its neighbours."""
        return not self.flops and not self.is_opaque


class StepTrace(TorchDispatchMode):
    """Books each operator that runs within the context, below autograd.

    Attributes:
        calls: one for each operator, in their order.
        memory: counts the storages that are alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.memory = StorageMeter()
        self._numbers: WeakKeyDictionary[UntypedStorage, int] = WeakKeyDictionary()
        self._unused = count()
        self._is_opaque = False
        self._is_in_kernel = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not self._is_in_kernel and func.namespace != "prim":  # questions, such as for the device
            self._book_operator(func, args, kwargs, output)
        return output

    def _book_operator(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        operator = func.overloadpacket
        read, written = _inputs(func, args, kwargs)
        if operator not in ALLOCATIONS:
            written += self._new(_tensors((args, kwargs)), output)
        flops = FLOPS[operator](*args, **kwargs, out_val=output) if operator in FLOPS else 0
        again = tuple([self._access(args[place]) for place in READ_TWICE.get(operator, ())])
        self._book(str(operator), read, written, flops=flops, read_again=again)
        self.memory.track(output)

    def opaque(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, changed so that no compiler looks into the operators that it calls."""

        @wraps(function)
        def booked(*args: Any, **kwargs: Any) -> Any:
            self._is_opaque = True
            try:
                return function(*args, **kwargs)
            finally:
                self._is_opaque = False

        return booked

    def as_kernel(
        self, name: str, function: Callable[..., Any], launches: int = 1
    ) -> Callable[..., Any]:
        """``function``, changed so that it is booked as one call, which no compiler looks into.

        Args:
            name: of the call.
            function: reads the tensors that it is given, and returns new ones.
            launches: the number of kernels that the function launches.
        """

        @wraps(function)
        def booked(*args: Any, **kwargs: Any) -> Any:
            given = _tensors((args, kwargs))
            with self.in_kernels():
                output = function(*args, **kwargs)
            self.book_kernel(name, given, self._new(given, output), launches)
            self.memory.track(output)
            return output

        return booked

    @contextmanager
    def in_kernels(self) -> Iterator[None]:
        """Book no operator within the context."""
        self._is_in_kernel = True
        try:
            yield
        finally:
            self._is_in_kernel = False

    def book_kernel(
        self, name: str, read: Sequence[Tensor], written: Sequence[Tensor], launches: int = 1
    ) -> None:
        """Book a call which no compiler looks into."""
        self._book(name, read, written, launches=launches, is_opaque=True)

    def _book(
        self, name: str, read: Sequence[Tensor], written: Sequence[Tensor], **more: Any
    ) -> None:
        if any(tensor.numel() for tensor in written):  # a view writes nothing
            reads, writes = (tuple(map(self._access, some)) for some in (read, written))
            self.calls.append(Call(name, reads, writes, **{"is_opaque": self._is_opaque, **more}))

    def _new(self, given: Sequence[Tensor], output: Any) -> list[Tensor]:
        """The tensors of ``output`` that are no views of ``given``."""
        known = {self._number(tensor) for tensor in given}
        return [tensor for tensor in _tensors(output) if self._number(tensor) not in known]

    def _access(self, tensor: Tensor) -> Access:
        extents = zip(tensor.shape, tensor.stride(), strict=True)
        size = math.prod(length for length, stride in extents if stride) * tensor.itemsize
        capacity = tensor.untyped_storage().nbytes()
        return Access(self._number(tensor), tensor.storage_offset(), size, capacity)

    def _number(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage not in self._numbers:
            self._numbers[storage] = next(self._unused)
        return self._numbers[storage]

    def alive(self) -> set[int]:
        """The numbers of the storages that are alive now."""
        return {*self._numbers.values()}


def fused(calls: Sequence[Call], alive: set[int]) -> list[Call]:
    """The calls as a compiler would launch them.

    A chain of light calls, between two products or codecs, is one launch. It reads once what was
    there before, and writes once what is read later or is alive at the end.

    Args:
        calls: those of a step.
        alive: the numbers of the storages that are alive after the step.
    """
    last_reads = {access.storage: place for place, c in enumerate(calls) for access in c.reads}
    launched: list[Call] = []
    place = 0
    for is_light, some in groupby(calls, key=lambda call: call.is_light):
        group = [*some]
        place += len(group)
        needed = alive | {storage for storage, last in last_reads.items() if last >= place}
        launched += _joined(group, needed) if is_light else group
    return launched


def _joined(chain: Sequence[Call], needed: set[int]) -> list[Call]:
    """The one call that ``chain`` becomes; none if nothing that it writes is needed."""
    reads: set[Access] = set()
    written: set[int] = set()
    for call in chain:
        reads.update(access for access in call.reads if access.storage not in written)
        written.update(access.storage for access in call.writes)
    writes = [access for call in chain for access in call.writes if access.storage in needed]
    unwritten = written - needed  # which are computed again where they are read again
    again = [access for call in chain for access in call.read_again]
    again = [access for access in again if access.storage not in unwritten]
    return [Call("chain", tuple(reads), tuple(writes), tuple(again))] if writes else []


def _inputs(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that an operator reads, and those of its arguments that it changes."""
    declared = func._schema.arguments
    given = {a.name: value for a, value in zip(declared, args, strict=False)} | kwargs
    read, changed = [], []
    for argument in declared:
        some = _tensors(given.get(argument.name))
        is_changed = argument.alias_info is not None and argument.alias_info.is_write
        if is_changed:
            changed += some
        if not is_changed or not (argument.is_out or func.overloadpacket in OVERWRITING):
            read += some
    return read, changed


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
