"""Meters of live tensor memory: one counts storages itself, one reads CUDA's allocator."""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch.nn.parameter import is_lazy
from typing_extensions import Self

from razorlight._torch import (
    CPU_KERNELS,
    TorchDispatchMode,
    is_traceable_wrapper_subclass,
    sparse_parts,
    tree_leaves,
)
from razorlight.errors import RazorError

MIB = 2**20


def model_tensors(model: nn.Module) -> list[Tensor]:
    """The parameters, buffers and gradients that ``model`` holds now."""
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    return [*parameters, *model.buffers(), *gradients]


def storage_bytes(*trees: object) -> int:
    """Bytes of the storages behind the tensors in ``trees``, a shared storage counted once.

    Args:
        trees: tensors, or lists, tuples and dicts of them at any depth; other leaves count nothing.
    """
    return sum({id(storage): storage.nbytes() for storage in _storages(trees)}.values())


def meter_for(device: torch.device) -> "StorageMeter | AllocatorMeter":
    """A meter of the memory of ``device``, to be entered as a context.

    Raises:
        RazorError: if ``device`` is neither a CPU nor a CUDA device.
    """
    if device.type == "cuda":
        return AllocatorMeter(device)
    if device.type == "cpu":
        return StorageMeter()
    raise RazorError(f"memory is measured on cpu and cuda devices only, this one is {device}")


class StorageMeter(TorchDispatchMode):
    """Counts the bytes of live tensor storages, exactly, on the CPU.

    Within the context, the storage of every operator's output counts from the operator's end until
    it is freed, whether Python, a view or autograd holds it. A storage that existed before counts
    once :meth:`track` is told of it, or an operator returns a view of it. After the context,
    ``live`` still falls as storages are freed. The inside of custom operators (``torch.library``)
    is followed. Two things are not seen: the scratch memory of PyTorch's own kernels, which are
    C++, and a storage resized by its own method, until an operator returns it. Code under
    ``torch.compile`` runs eagerly within the context, so its eager memory is counted.

    Args:
        granularity: each storage counts as the next multiple of so many bytes.

    Attributes:
        live: bytes of the storages alive now.
        peak: highest value of ``live`` so far.
    """

    def __init__(self, granularity: int = 1) -> None:
        super().__init__()
        self._granularity = granularity
        self.live = 0
        self.peak = 0
        # by id: PyTorch keeps a storage's Python object for as long as its memory lives
        self._known: dict[int, tuple[weakref.ref[UntypedStorage], int]] = {}
        self._eager: list[AbstractContextManager[None]] = []

    def __enter__(self) -> Self:
        # torch leaves compiled code out within a mode, but refuses to for fullgraph=True
        self._eager.append(torch.compiler.set_stance("force_eager"))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._eager.pop().__exit__(*error)

    def track(self, *trees: object) -> None:
        """Count the tensors in ``trees`` (see :func:`storage_bytes`), which exist already."""
        for storage in _storages(trees):
            self._note(storage)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = self._call(func, args, kwargs or {})
        for storage in _storages(output):
            self._note(storage)
        return output

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func.namespace in ("aten", "prim", "prims"):
            return func(*args, **kwargs)
        # the mode is off in here: turned on again, it sees what a custom operator is made of
        with self:
            return func.redispatch(CPU_KERNELS, *args, **kwargs)

    def _note(self, storage: UntypedStorage) -> None:
        key, size = id(storage), self._size(storage)
        if key not in self._known:
            self._known[key] = weakref.ref(storage, partial(self._forget, key)), size
            self.live += size
        elif self._known[key][1] != size:  # resized in place
            reference, old = self._known[key]
            self._known[key] = reference, size
            self.live += size - old
        self.peak = max(self.peak, self.live)

    def _size(self, storage: UntypedStorage) -> int:
        return -(-storage.nbytes() // self._granularity) * self._granularity

    def bytes_of(self, *trees: object) -> int:
        """As :func:`storage_bytes`, each storage as this meter counts it."""
        return sum({id(storage): self._size(storage) for storage in _storages(trees)}.values())

    def _forget(self, key: int, _: object) -> None:
        self.live -= self._known.pop(key)[1]


class AllocatorMeter:
    """The same readings from the allocator of a CUDA device, which sees all of the process there.

    Entering the context resets the device's peak statistics, for the whole process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> Self:
        torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def track(self, *trees: object) -> None:
        """Do nothing: the allocator counts every tensor on its device."""

    @property
    def live(self) -> int:
        """Bytes allocated now, by anything in the process."""
        return torch.cuda.memory_allocated(self._device)

    @property
    def peak(self) -> int:
        """Highest value of ``live`` since the context was entered."""
        return torch.cuda.max_memory_allocated(self._device)


def _storages(tree: object) -> Iterator[UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield from storages_of(leaf)


def storages_of(tensor: Tensor) -> Iterator[UntypedStorage]:
    """The storages behind a tensor, of which a subclass may have several."""
    if is_lazy(tensor):  # it has no storage yet
        return
    if is_traceable_wrapper_subclass(tensor):
        # a DTensor also names attributes that are no tensors
        yield from _storages([getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]])
    elif tensor.layout == torch.sparse_coo:  # the gradient of nn.Embedding(sparse=True)
        yield from _storages(sparse_parts(tensor))
    elif tensor.layout == torch.strided:
        yield tensor.untyped_storage()
