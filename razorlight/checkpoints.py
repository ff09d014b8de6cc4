"""Checkpoints and weights from anywhere: read as data, never run."""

import argparse
import collections
import datetime
import pathlib
import types
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch.serialization import safe_globals

from razorlight.errors import RazorError


def _without_default(factory: Any = None) -> dict[Any, Any]:
    """In place of a ``defaultdict``, whose entries torch refuses to set."""
    return {}


PLAIN: list[Any] = [
    *(argparse.Namespace, types.SimpleNamespace, collections.Counter),
    (_without_default, "collections.defaultdict"),
    *(dict, list, tuple, set, int, float, bool, str),  # of a defaultdict, or the type of an option
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    # another system or version of Python may have made the path
    *(
        (pure, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for pure in (pathlib.PurePosixPath, pathlib.PureWindowsPath)
        for name in (pure.__name__, pure.__name__.removeprefix("Pure"))
    ),
    # numpy's numbers, and no arrays: those of objects would hold whatever their bytes say
    *((scalar, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
    np.dtype,
    *{type(np.dtype(kind)) for kind in (*np.typecodes["AllInteger"], *np.typecodes["AllFloat"])},
    *(type(np.dtype(kind)) for kind in ("?", "U1", "S1")),
]
"""What training programs write beside tensors, and what does nothing but hold values when made."""


class Unread:
    """In place of an array of numpy's, of whose bytes nothing is made."""

    def __init__(self, *parts: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


ARRAYS = [
    (Unread, name)
    for name in (
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
    )
]


def read_checkpoint(
    path: str | PathLike[str], what: str, map_location: Any = "cpu", past_arrays: bool = False
) -> Any:
    """Read what ``torch.save`` wrote, of tensors and plain values (:data:`PLAIN`) alone.

    Args:
        path: the file.
        what: the option that names it, for messages.
        map_location: as ``torch.load`` takes it.
        past_arrays: Whether arrays of numpy's come as :class:`Unread`; else they are refused.

    Raises:
        RazorError: if it cannot be read, or holds anything else, of which nothing is run.
    """
    try:
        with safe_globals([*PLAIN, *(ARRAYS if past_arrays else ())]):
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # of any kind: whatever the parsers of zip and pickle stumble over
        lines = str(error).splitlines() or [type(error).__name__]
        gist = next((line for line in lines if "nsupported" in line), lines[0])
        raise RazorError(
            f"{what}: cannot read tensors from {path}, and ran nothing that it says "
            f"({gist.partition('. ')[0]}); give a file of tensors and plain values"
        ) from error
