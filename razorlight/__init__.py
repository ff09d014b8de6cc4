"""razorlight: train pretrained networks in a fraction of the activation memory."""

from razorlight.callbacks import BackRazor, MemoryProfiler
from razorlight.codecs import Codec, Dense, Mask, Slope, TopK, Uniform
from razorlight.conversion import is_converted, razor_, restore_
from razorlight.errors import RazorError
from razorlight.layers import register
from razorlight.planning import RECIPES, Recipe
from razorlight.report import Report

__version__ = "0.1.0"

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
    "Slope",
    "TopK",
    "Uniform",
    "is_converted",
    "razor_",
    "register",
    "restore_",
]
