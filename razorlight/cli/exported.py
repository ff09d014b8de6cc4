"""``razorlight predict --model net.safetensors``: by a network that ``razorlight export`` wrote."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from razorlight.data import RazorDataModule
from razorlight.errors import RazorError

NET = "net."
"""The prefix of the names of the network's tensors, in every task."""

SUFFIX = ".safetensors"
_NO_CLASSES = (".onnx", ".ckpt", ".pth", ".pt", ".bin")
METADATA = "razorlight"
"""The key of the metadata of a file below which its card stands."""

_OF_TRAINING = {
    *("optimizer", "schedule", "layer_decay", "lr_multipliers", "freeze"),
    *("class_weights", "pos_weight"),
    *("augment", "balanced", "predict_folder"),
}
"""Arguments of tasks and data that a prediction has no use for."""


@dataclass(frozen=True)
class Learned:
    """What a run has learned beside its network.

    Attributes:
        facts: what the network must know of its data, as ``RazorDataModule.state_dict``.
        buffers: small tensors of the task, as lists, such as the mean of its targets.
    """

    facts: Mapping[str, Any]
    buffers: Mapping[str, Any]

    def teach_data(self, data: RazorDataModule) -> None:
        """Let data know it, without the images that it was learned from."""
        if names := self.facts.get("class_names"):
            vars(data)["class_names"] = tuple(names)
        data.load_state_dict(dict(self.facts))

    def teach_task(self, task: nn.Module) -> None:
        """Put the tensors into a task that has such tensors."""
        own = dict(task.named_buffers())
        for name, values in self.buffers.items():
            if name in own:
                own[name].copy_(torch.tensor(values))


def to_predict(
    config: Mapping[str, Any], facts: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What ``predict`` needs to make a network and its data again.

    Args:
        config: the configuration of the run.
        facts: what a checkpoint says of its data.
        state: the tensors of the checkpoint.

    Returns:
        Of ``model`` and ``data`` the class and its arguments, and what :class:`Learned` has; empty
        without a configuration.
    """
    if not {"model", "data"} <= config.keys():
        return {}
    beside = {name: tensor for name, tensor in state.items() if not name.startswith(NET)}
    buffers = {name: t.tolist() for name, t in beside.items() if t.numel() <= _MOST_NUMBERS}
    learned = Learned(dict(facts), buffers)
    parts = {key: _untrained(config[key]) for key in ("model", "data")}
    return parts | asdict(learned)


_MOST_NUMBERS = 10_000
"""The size of the largest tensor beside the network that is kept, as text."""


def _untrained(made: Mapping[str, Any]) -> dict[str, Any]:
    arguments = made.get("init_args") or {}
    kept = {key: value for key, value in arguments.items() if key not in _OF_TRAINING}
    return {"class_path": made["class_path"], "init_args": kept}


def unpack(words: Sequence[str]) -> tuple[list[str], Learned | None]:
    """Put what an exported file says in place of its name.

    Args:
        words: the arguments of a command, the command first.

    Returns:
        The arguments, with model, data and a logger in full, and what was learned beside the
        network. Without an exported file they are as they were, and None.

    Raises:
        RazorError: if the file cannot be read, does not say what network it is, or is given to
            another command than ``predict``; without a folder to predict.
    """
    place, file = _given(words)
    if place is None:
        return [*words], None
    if words[0] != "predict":
        raise RazorError(
            f"model: {file} is an exported network, for `razorlight predict`; to train it, give it "
            "as --model.weights"
        )
    if not any(word.startswith("--data.predict_folder") for word in words):
        raise RazorError(f"model: {file} predicts a folder of images: give --data.predict_folder")
    made = _read(Path(file))
    made["model"]["init_args"]["weights"] = file
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": "runs", "name": Path(file).stem},
    }
    options = {"model": made["model"], "data": made["data"], "trainer.logger": logger}
    first = [f"--{key}={json.dumps(value)}" for key, value in options.items()]
    rest = [word for number, word in enumerate(words) if number not in place]
    learned = Learned(made["facts"], made["buffers"])
    return [rest[0], *first, "--razor=false", *rest[1:]], learned


def put_into_argv(words: Sequence[str]) -> None:
    """Let Lightning find these arguments in place of those of the process."""
    sys.argv = [sys.argv[0], *words]


def _given(words: Sequence[str]) -> tuple[range | None, str]:
    """The places of the option ``--model`` and its value, if the value is an exported file."""
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option != "--model":
            continue
        if not equals and number + 1 < len(words):
            value = words[number + 1]
        if value.endswith(_NO_CLASSES):
            raise RazorError(
                f"model: {value} is neither a class nor an exported network; give the "
                f"{SUFFIX} file that `razorlight export` writes"
            )
        if value.endswith(SUFFIX):
            return range(number, number + (1 if equals else 2)), value
    return None, ""


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise RazorError(f"model: there is no file {file}")
    try:
        with safe_open(file, "np") as tensors:
            metadata = tensors.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise RazorError(f"model: {file} cannot be read: {error}; export it again") from error
    made = json.loads(metadata.get(METADATA, "{}")).get("to_predict")
    if not made:
        raise RazorError(
            f"model: {file} does not say what network it is; write it by `razorlight export` of a "
            "checkpoint that lies in the folder of its run"
        )
    known: dict[str, Any] = made
    return known
