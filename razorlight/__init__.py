"""razorlight: train pretrained networks in a fraction of the activation memory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from razorlight.callbacks import BackRazor, MemoryProfiler, OptimizerInBackward
    from razorlight.codecs import Codec, Dense, Mask, Slope, TopK, Uniform
    from razorlight.conversion import Plan, is_converted, razor_, restore_
    from razorlight.errors import RazorError
    from razorlight.layers import register
    from razorlight.memory import step_in_backward
    from razorlight.planning import RECIPES, Recipe, Role

__all__ = [
    "RECIPES",
    "BackRazor",
    "Codec",
    "Dense",
    "Mask",
    "MemoryProfiler",
    "OptimizerInBackward",
    "Plan",
    "RazorError",
    "Recipe",
    "Role",
    "Slope",
    "TopK",
    "Uniform",
    "is_converted",
    "razor_",
    "register",
    "restore_",
    "step_in_backward",
]

__version__ = "0.1.0"

_HOMES = {
    "razorlight.callbacks": ("BackRazor", "MemoryProfiler", "OptimizerInBackward"),
    "razorlight.codecs": ("Codec", "Dense", "Mask", "Slope", "TopK", "Uniform"),
    "razorlight.conversion": ("Plan", "is_converted", "razor_", "restore_"),
    "razorlight.errors": ("RazorError",),
    "razorlight.layers": ("register",),
    "razorlight.memory": ("step_in_backward",),
    "razorlight.planning": ("RECIPES", "Recipe", "Role"),
}


def __getattr__(name: str) -> Any:
    # each name brings what it needs alone: `razor_` brings torch, callbacks bring Lightning
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
