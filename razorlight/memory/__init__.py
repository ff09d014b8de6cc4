"""What a training step and a run need: meters, one step's figures, histories, reports."""

from razorlight.memory.held import Held, ValuesWatch
from razorlight.memory.in_backward import step_in_backward
from razorlight.memory.meter import AllocatorMeter, StorageMeter, meter_for, storage_bytes
from razorlight.memory.peak import Peak, find_peak
from razorlight.memory.step import StepMemory, measure_step

__all__ = [
    "AllocatorMeter",
    "Held",
    "Peak",
    "StepMemory",
    "StorageMeter",
    "ValuesWatch",
    "find_peak",
    "measure_step",
    "meter_for",
    "step_in_backward",
    "storage_bytes",
]
