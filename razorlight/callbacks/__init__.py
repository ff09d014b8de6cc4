"""Lightning callbacks."""

from razorlight.callbacks.back_razor import BackRazor
from razorlight.callbacks.last_checkpoint import LastCheckpoint
from razorlight.callbacks.memory_profiler import MemoryProfiler
from razorlight.callbacks.optimizer_in_backward import OptimizerInBackward
from razorlight.callbacks.prediction_writer import PredictionWriter
from razorlight.callbacks.random_state import RandomState
from razorlight.callbacks.run_summary import RunSummary

__all__ = [
    "BackRazor",
    "LastCheckpoint",
    "MemoryProfiler",
    "OptimizerInBackward",
    "PredictionWriter",
    "RandomState",
    "RunSummary",
]
