"""The public names of razorlight, which the package itself gives out."""

from razorlight.callbacks import BackRazor, MemoryProfiler
from razorlight.codecs import Codec, Dense, Mask, Slope, TopK, Uniform
from razorlight.conversion import is_converted, razor_, restore_
from razorlight.errors import RazorError
from razorlight.layers import Role, register
from razorlight.planning import RECIPES, Recipe
from razorlight.report import Report

__all__ = [
    "RECIPES",
    "BackRazor",
    "Codec",
    "Dense",
    "Mask",
    "MemoryProfiler",
    "RazorError",
    "Recipe",
    "Report",
    "Role",
    "Slope",
    "TopK",
    "Uniform",
    "is_converted",
    "razor_",
    "register",
    "restore_",
]
