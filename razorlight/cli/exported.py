"""``razorlight predict --model net.safetensors``: by a network that ``razorlight export`` wrote."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from razorlight.cli.signatures import arguments_of, own_classes
from razorlight.errors import RazorError

SUFFIX = ".safetensors"
METADATA = "razorlight"
"""The key of the metadata of a file below which its card stands."""

_OF_TRAINING = {
    *("optimizer", "schedule", "layer_decay", "lr_multipliers", "freeze", "class_weights"),
    *("augment", "balanced", "predict_folder"),
}
"""Arguments of tasks and data that a prediction has no use for."""


def to_predict(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``predict`` needs to make a network and its data again.

    Args:
        config: the configuration of the run.
        facts: what a checkpoint says of its data, as ``RazorDataModule.state_dict``.

    Returns:
        Of ``model`` and ``data`` the class and its arguments, and ``facts``; empty without a
        configuration.
    """
    if not {"model", "data"} <= config.keys():
        return {}
    model, data = _untrained(config["model"]), _untrained(config["data"])
    kind = data["class_path"].rpartition(".")[2]
    if kind in own_classes() and "classes" in arguments_of(kind) and "class_names" in facts:
        data["init_args"]["classes"] = [*facts["class_names"]]
    return {"model": model, "data": data, "facts": dict(facts)}


def _untrained(made: Mapping[str, Any]) -> dict[str, Any]:
    arguments = made.get("init_args") or {}
    kept = {key: value for key, value in arguments.items() if key not in _OF_TRAINING}
    return {"class_path": made["class_path"], "init_args": kept}


def unpack(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Put what an exported file says in place of its name.

    Args:
        words: the arguments of a command, the command first.

    Returns:
        The arguments, with model, data and a logger in full, and what the network must know of its
        data. Without an exported file they are as they were, and nothing.

    Raises:
        RazorError: if the file cannot be read, does not say what network it is, or is given to
            another command than ``predict``; without a folder to predict.
    """
    place, file = _given(words)
    if place is None:
        return [*words], {}
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
    return [rest[0], *first, "--razor=false", *rest[1:]], made["facts"]


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
