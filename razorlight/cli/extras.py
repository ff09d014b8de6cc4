"""Packages that not everybody needs, and the extras of razorlight that bring them."""

import re

EXTRAS = {
    "tensorboard": "tensorboard",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "bitsandbytes": "lowbit",
    "torchao": "lowbit",
    "rasterio": "geo",
}
"""The extra that brings a package, by the name of its module."""


def install_missing(message: str) -> str | None:
    """How to install a package that an error says is missing; None for any other error.

    Args:
        message: message of an ImportError, or of what a program raises in place of one.
    """
    found = re.search(r"(?:Requirement '|No module named '|Neither `)(\w+)", message)
    if found is None or found[1] not in EXTRAS:
        return None
    return f'the package {found[1]} is missing; pip install "razorlight[{EXTRAS[found[1]]}]"'
