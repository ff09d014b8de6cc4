"""Conversion: a plan is made for a network, and its layers are converted by the plan."""

from razorlight.conversion.convert import Conversion, is_converted, razor_, restore_
from razorlight.conversion.given_plan import fit_plan, read_given
from razorlight.conversion.make_plan import make_plan
from razorlight.conversion.plan import Line, Plan

__all__ = [
    "Conversion",
    "Line",
    "Plan",
    "fit_plan",
    "is_converted",
    "make_plan",
    "razor_",
    "read_given",
    "restore_",
]
