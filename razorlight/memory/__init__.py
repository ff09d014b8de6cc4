"""What a training step and a run need: meters, one step's figures, histories, reports."""

from razorlight.memory.budget import PlanWithin, plan_within
from razorlight.memory.estimate import StepEstimate
from razorlight.memory.held import Held, ValuesWatch
from razorlight.memory.in_backward import step_in_backward
from razorlight.memory.look import Peak
from razorlight.memory.meter import AllocatorMeter, StorageMeter, meter_for, storage_bytes
from razorlight.memory.peak import find_peak
from razorlight.memory.step import StepMemory, measure_step

__all__ = [
    "AllocatorMeter",
    "Held",
    "Peak",
    "PlanWithin",
    "StepEstimate",
    "StepMemory",
    "StorageMeter",
    "ValuesWatch",
    "find_peak",
    "measure_step",
    "meter_for",
    "plan_within",
    "step_in_backward",
    "storage_bytes",
]
