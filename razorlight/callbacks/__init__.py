"""Lightning callbacks."""

from razorlight.callbacks.back_razor import BackRazor
from razorlight.callbacks.last_checkpoint import LastCheckpoint
from razorlight.callbacks.mask_writer import MaskWriter
from razorlight.callbacks.memory_profiler import MemoryProfiler
from razorlight.callbacks.random_state import RandomState
from razorlight.callbacks.run_summary import RunSummary

__all__ = [
    "BackRazor",
    "LastCheckpoint",
    "MaskWriter",
    "MemoryProfiler",
    "RandomState",
    "RunSummary",
]
