"""The layers that razorlight knows, one file for each package that they come from.

Layers of other packages than torch are registered by path. Such a package need not be installed,
and is not imported here. A class belongs here once the tests compare its razor layer with the dense
layer.
"""

from razorlight.layers.known import smp, timm, torch, torchvision, transformers

__all__ = ["smp", "timm", "torch", "torchvision", "transformers"]
