"""Razor layers: the classes that dense layers are turned into, and the registry of known ones."""

from razorlight.layers import known as _known  # noqa: F401  (fills the registry)
from razorlight.layers.block import RazorBlock, find_blocks
from razorlight.layers.layer import RazorLayer, RazorModule, make_dense, make_razor
from razorlight.layers.registry import (
    BY_PATH,
    REGISTRY,
    Known,
    find_known,
    known_classes,
    register,
)
from razorlight.layers.seen import Seen

__all__ = [
    "BY_PATH",
    "REGISTRY",
    "Known",
    "RazorBlock",
    "RazorLayer",
    "RazorModule",
    "Seen",
    "find_blocks",
    "find_known",
    "known_classes",
    "make_dense",
    "make_razor",
    "register",
]
