"""Razor layers: the classes that dense layers are turned into, and their registry."""

from razorlight.layers import known as _known  # noqa: F401  (fills the registry)
from razorlight.layers import known_transformers as _known_transformers  # noqa: F401
from razorlight.layers.base import REGISTRY, RazorLayer, Role, find_razor_class, register
from razorlight.layers.block import PRODUCTS, block_class, find_blocks
from razorlight.layers.seen import Seen

__all__ = [
    "PRODUCTS",
    "REGISTRY",
    "RazorLayer",
    "Role",
    "Seen",
    "block_class",
    "find_blocks",
    "find_razor_class",
    "register",
]
