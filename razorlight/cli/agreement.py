"""Whether the task and the data of a configuration go together."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from razorlight.data import DepthFolder, RazorDataModule
from razorlight.data.classification import ClassificationData
from razorlight.errors import RazorError
from razorlight.protocols import Coloured
from razorlight.tasks import ClassificationTask, DepthTask, SegmentationTask

_READS = {
    ClassificationTask: "a class for each image",
    SegmentationTask: "a class for each pixel",
    DepthTask: "metres for each pixel",
}
"""The targets that a task learns."""


def check_agreement(model: Mapping[str, Any], data: RazorDataModule) -> None:
    """See that a task can learn some data, before its network is made or downloaded.

    Args:
        model: the configuration of the task, with its ``class_path``.
        data: the data module.

    Raises:
        RazorError: if the targets are of another kind than the task learns, or a number of classes
            is given that is not that of the data.
    """
    module, _, name = model["class_path"].rpartition(".")
    kind = getattr(import_module(module), name)
    reads = next((what for task, what in _READS.items() if issubclass(kind, task)), None)
    gives = _targets(data)
    if reads and gives and reads != gives:
        fitting = next(task.__name__ for task, what in _READS.items() if what == gives)
        raise RazorError(
            f"model: {name} learns {reads}, and {type(data).__name__} has {gives}; take {fitting}"
        )
    given = (model.get("init_args") or {}).get("num_classes")
    known = getattr(data, "num_classes", None)
    if given is not None and known is not None and given != known:
        raise RazorError(
            f"model.num_classes: {type(data).__name__} has {known} classes, not {given}; leave the "
            "number out, it is taken from the data"
        )


def _targets(data: RazorDataModule) -> str | None:
    """The targets of some data, without reading them; None if nobody knows."""
    if isinstance(data, ClassificationData):
        return _READS[ClassificationTask]
    if isinstance(data, Coloured):
        return _READS[SegmentationTask]
    return _READS[DepthTask] if isinstance(data, DepthFolder) else None
