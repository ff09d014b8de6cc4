"""Checkpoints and weights from anywhere: they are read as data, and no code in them is run."""

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
    """Stands in for ``defaultdict``, since torch refuses to set the entries of one."""
    return {}


PLAIN: list[Any] = [
    *(argparse.Namespace, types.SimpleNamespace, collections.Counter),
    (_without_default, "collections.defaultdict"),
    # the factory of a defaultdict, or the type of an option
    *(dict, list, tuple, set, int, float, bool, str),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    # another system or another version of Python may have saved the path
    *(
        (pure, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for pure in (pathlib.PurePosixPath, pathlib.PureWindowsPath)
        for name in (pure.__name__, pure.__name__.removeprefix("Pure"))
    ),
    # numbers of numpy, but no arrays: an array of objects can hold anything
    *((scalar, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
    np.dtype,
    *{type(np.dtype(kind)) for kind in (*np.typecodes["AllInteger"], *np.typecodes["AllFloat"])},
    *(type(np.dtype(kind)) for kind in ("?", "U1", "S1")),
]
"""Types that training programs save beside tensors, and that do nothing but hold values."""


class Unread:
    """Stands in for an array of numpy. Its bytes are not looked at."""

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
    """Read a file of ``torch.save`` that holds only tensors and plain values (:data:`PLAIN`).

    Args:
        path: the file.
        what: name of the option that gives the file, for messages.
        map_location: device or function, as ``torch.load`` takes it.
        past_arrays: Whether to give arrays of numpy as :class:`Unread`, instead of refusing them.

    Raises:
        RazorError: if the file cannot be read or holds anything else. No code in it is run.
    """
    try:
        with safe_globals([*PLAIN, *(ARRAYS if past_arrays else ())]):
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # of any kind: whatever the parsers of zip and pickle stumble over
        lines = str(error).splitlines() or [type(error).__name__]
        gist = next((line for line in lines if "nsupported" in line), lines[0])
        raise RazorError(
            f"{what}: cannot read tensors from {path}, and no code in it was run "
            f"({gist.partition('. ')[0]}); give a file of tensors and plain values"
        ) from error
