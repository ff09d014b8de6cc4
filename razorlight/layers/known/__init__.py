"""The layers that razorlight knows, by the package that they come from.

Those of other packages than torch are known by path: the package need not be there, and is not
imported. A class belongs here once the tests compare it with its dense self.
"""

from razorlight.layers.known import smp, timm, torch, torchvision, transformers

__all__ = ["smp", "timm", "torch", "torchvision", "transformers"]
