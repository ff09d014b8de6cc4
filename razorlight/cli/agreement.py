"""Whether the task and the data of a configuration go together."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from razorlight.data import DepthFolder, RazorDataModule
from razorlight.data.classification import ClassificationData
from razorlight.data.imagery import FolderImagery
from razorlight.errors import RazorError
from razorlight.protocols import Coloured, Measured, MultiLabelled
from razorlight.tasks import (
    ClassificationTask,
    DepthTask,
    MultiLabelClassificationTask,
    RegressionTask,
    SegmentationTask,
)
from razorlight.tasks.networks import RGB

_READS = {
    ClassificationTask: "a class for each image",
    MultiLabelClassificationTask: "any number of classes for each image",
    RegressionTask: "numbers for each image",
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
            of targets or of channels is given that is not that of the data.
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
    arguments = model.get("init_args") or {}
    for what in ("classes", "targets"):
        given, known = arguments.get(f"num_{what}"), getattr(data, f"num_{what}", None)
        if given is not None and known is not None and given != known:
            raise RazorError(
                f"model.num_{what}: {type(data).__name__} has {known} {what}, not {given}; leave "
                "the number out, it is taken from the data"
            )
    for key, given in _channels(arguments) if isinstance(data.imagery, FolderImagery) else ():
        if given != data.num_bands:
            raise RazorError(
                f"{key}: the images of {type(data).__name__} are read with {data.num_bands} bands, "
                f"not {given}; leave the number out, it is taken from the data, or set data.bands"
            )


def _channels(arguments: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The numbers of channels that a task is given."""
    if arguments.get("in_channels") not in (None, RGB):
        yield "model.in_channels", arguments["in_channels"]
    for name in ("in_channels", "in_chans"):
        if name in (arguments.get("model_args") or {}):
            yield f"model.model_args.{name}", arguments["model_args"][name]


def _targets(data: RazorDataModule) -> str | None:
    """The targets of some data, without reading them; None if nobody knows."""
    if isinstance(data, ClassificationData):
        return _READS[ClassificationTask]
    if isinstance(data, MultiLabelled):
        return _READS[MultiLabelClassificationTask]
    if isinstance(data, Measured):
        return _READS[RegressionTask]
    if isinstance(data, Coloured):
        return _READS[SegmentationTask]
    return _READS[DepthTask] if isinstance(data, DepthFolder) else None
