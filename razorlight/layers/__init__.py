"""Razor layers: the classes that dense layers are turned into, and their registry."""

from razorlight.layers import known as _known  # noqa: F401  (fills the registry)
from razorlight.layers.base import REGISTRY, RazorLayer, Role, register

__all__ = ["REGISTRY", "RazorLayer", "Role", "register"]
