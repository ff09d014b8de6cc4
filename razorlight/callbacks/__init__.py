"""Lightning callbacks."""

from razorlight.callbacks.back_razor import BackRazor
from razorlight.callbacks.last_checkpoint import LastCheckpoint
from razorlight.callbacks.memory_profiler import MemoryProfiler
from razorlight.callbacks.prediction_writer import PredictionWriter
from razorlight.callbacks.random_state import RandomState
from razorlight.callbacks.run_summary import RunSummary

__all__ = [
    "BackRazor",
    "LastCheckpoint",
    "MemoryProfiler",
    "PredictionWriter",
    "RandomState",
    "RunSummary",
]
