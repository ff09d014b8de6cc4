"""Lightning callbacks."""

from razorlight.callbacks.back_razor import BackRazor
from razorlight.callbacks.mask_writer import MaskWriter
from razorlight.callbacks.memory_profiler import MemoryProfiler

__all__ = ["BackRazor", "MaskWriter", "MemoryProfiler"]
