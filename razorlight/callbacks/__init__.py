"""Lightning callbacks."""

from razorlight.callbacks.back_razor import BackRazor
from razorlight.callbacks.memory_profiler import MemoryProfiler
from razorlight.callbacks.prediction_writer import PredictionWriter

__all__ = ["BackRazor", "MemoryProfiler", "PredictionWriter"]
