"""Peak allocated in each phase of an epoch (train, val, test)."""

from collections import Counter
from collections.abc import Callable

import torch

from razorlight.memory.meter import AllocatorMeter, StorageMeter, meter_for, storage_bytes


class PhaseMeter:
    """Measures one phase of an epoch at a time.

    On CUDA a phase counts as a whole, from :meth:`enter` to :meth:`leave`; on the CPU its first
    steps do, from :meth:`start_step` to :meth:`end_step`. Steps that are not measured cost nothing.

    Args:
        device: the CPU or CUDA device to measure.

    Attributes:
        peaks: bytes of peak allocated by phase, since :meth:`reset`; on the CPU 0 for a phase
            without steps.
        stored: most bytes stored after a forward, since :meth:`reset`; None if none was noted.

    Raises:
        RazorError: for another device.
    """

    def __init__(self, device: torch.device) -> None:
        meter_for(device)  # another device is refused now, not within the first step
        self._device = device
        self._by_step = device.type == "cpu"
        self._meter: StorageMeter | AllocatorMeter | None = None
        self._held: Callable[[], object] | None = None
        self._phase = ""
        self._others = 0
        self.reset()

    def reset(self) -> None:
        """Begin a new epoch."""
        self.leave()
        self.peaks: dict[str, int] = {}
        self.stored: int | None = None
        self._steps: Counter[tuple[str, int]] = Counter()

    def enter(self, phase: str, steps: int) -> None:
        """Begin ``phase``, or resume it, to measure its first ``steps`` steps of the epoch."""
        self.leave()
        self._phase, self._limit = phase, steps
        self.peaks.setdefault(phase, 0)
        if not self._by_step:
            self._open()

    def leave(self) -> None:
        """End the phase, and the step within it; no step is measured until the next phase."""
        self._limit = 0
        self._held = None
        self._close()

    def start_step(self, held: Callable[[], object], loader: int = 0) -> None:
        """Begin a step.

        Args:
            held: function that returns the tensors that are alive whatever the step does, such as
                parameters, gradients and batch, in any nesting. Only measured steps call it.
            loader: index of the step's dataloader. The steps of each dataloader are counted apart.
        """
        self._steps[self._phase, loader] += 1
        if self._steps[self._phase, loader] > self._limit:
            return
        if self._by_step:
            self._open()
        assert self._meter is not None
        self._held = held
        self._meter.track(held())
        self._others = self._meter.live - storage_bytes(held())

    def note_stored(self) -> None:
        """Note the memory alive beside ``held``; call it between forward and backward of a step."""
        assert self._meter is not None
        assert self._held is not None
        stored = self._meter.live - self._others - storage_bytes(self._held())
        self.stored = max(self.stored or 0, stored)

    def end_step(self) -> None:
        """End the step."""
        self._held = None
        if self._by_step:
            self._close()

    @property
    def measuring(self) -> bool:
        """Whether a measured step is under way."""
        return self._held is not None

    @property
    def peak(self) -> int:
        """Bytes of peak allocated in the phase under way, so far in its epoch."""
        return max(self.peaks[self._phase], self._meter.peak if self._meter is not None else 0)

    def _open(self) -> None:
        self._close()
        self._meter = meter_for(self._device)
        self._meter.__enter__()

    def _close(self) -> None:
        if self._meter is not None:
            self._meter.__exit__(None, None, None)
            self.peaks[self._phase] = max(self.peaks[self._phase], self._meter.peak)
            self._meter = None
