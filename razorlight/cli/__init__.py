"""The command line."""

from razorlight.cli.main import main

__all__ = ["main"]
