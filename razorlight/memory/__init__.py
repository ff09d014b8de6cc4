"""What a training step and a run need: meters, one step's figures, histories, reports."""

from razorlight.memory.meter import AllocatorMeter, StorageMeter, meter_for, storage_bytes
from razorlight.memory.step import StepMemory, measure_step

__all__ = [
    "AllocatorMeter",
    "StepMemory",
    "StorageMeter",
    "measure_step",
    "meter_for",
    "storage_bytes",
]
