"""Conversion: a plan is made for a network, and its layers are converted by the plan."""

from razorlight.conversion.convert import (
    Conversion,
    check_only_plan,
    choose_plan,
    is_converted,
    razor_,
    restore_,
)
from razorlight.conversion.make_plan import make_plan
from razorlight.conversion.plan import Line, Plan

__all__ = [
    "Conversion",
    "Line",
    "Plan",
    "check_only_plan",
    "choose_plan",
    "is_converted",
    "make_plan",
    "razor_",
    "restore_",
]
