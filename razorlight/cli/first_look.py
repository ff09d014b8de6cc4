"""What a glance at arguments and files tells to be wrong, before torch is imported.

It knows names alone: files, keys, and arguments of the classes of razorlight and of the trainer.
What it lets pass, jsonargparse checks. What it refuses, jsonargparse would refuse too.
"""

import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from razorlight.cli import sources
from razorlight.cli.help import CALLBACK_KEYS
from razorlight.cli.signatures import arguments_of, own_classes, sections
from razorlight.cli.values import refusal
from razorlight.config_files import find_config

_STRUCTURE = {"class_path", "init_args", "dict_kwargs", "help"}
"""Keys that stand beside or above the arguments of a class."""


def look(words: Sequence[str]) -> None:
    """Look at the arguments of a command, one by one.

    Args:
        words: the arguments, without the command.

    Raises:
        ArgumentError: for an unknown name. The message is worded as those of jsonargparse.
        RazorError: for a configuration that is not there.
    """
    kinds = {key: key_class(key) for key in sections()}
    if any(word == "-h" or re.match(r"--[\w.]+\.help", word) for word in words):
        return
    for option, value, typed in _options(words):
        if option in ("-c", "--config"):
            if not value:
                raise ArgumentError(None, f"argument {option}: expected one argument")
            _look_into(find_config(value), kinds)
        elif not option.startswith("-"):
            raise ArgumentError(None, f"unrecognized arguments: {option}")
        elif option.startswith("--"):
            key, _, rest = option[2:].partition(".")
            if key not in kinds and _is_misplaced(key):
                raise ArgumentError(None, f"unrecognized arguments: {typed}")
            if key in kinds and not rest:
                kinds[key] = _named(key, value)
            elif key in kinds and (wrong := _unknown(kinds[key], rest)):
                raise ArgumentError(None, _refusal(key, kinds[key], wrong, typed))
            elif key in kinds:
                _check_value(key, kinds[key], rest, value)
    if not any(re.match("-c|--(config|model|data)", word) for word in words):
        raise ArgumentError(None, f"the following arguments are required: data, model; {_START}")


_START = "begin with --config quickstart.yaml, or see `razorlight list configs`"


def key_class(key: str) -> str | None:
    """The class whose arguments a key takes, unless it names another; None if it must name one."""
    if key in CALLBACK_KEYS:
        return CALLBACK_KEYS[key].callback
    return "Trainer" if key == "trainer" else None


def _options(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """The options, their values, empty for an option that has none, and both as they were typed."""
    rest = [*words]
    while rest:
        typed = rest.pop(0)
        option, equals, value = typed.partition("=")
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
            typed = f"{option} {value}"
        yield option, value, typed


def _look_into(path: str, kinds: dict[str, str | None]) -> None:
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _LOADER)
        for key, value in content.items() if isinstance(content, Mapping) else ():
            _look_at(str(key), value, kinds)
    except (yaml.YAMLError, UnicodeError, ArgumentError) as error:
        raise ArgumentError(None, f"{path}: {error}") from error


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, if there is one: its errors are shorter."""


def _look_at(key: str, value: Any, kinds: dict[str, str | None]) -> None:
    """Look at a key of a file."""
    if key not in kinds and _is_misplaced(key):
        raise ArgumentError(None, f"Option {key!r} is not accepted")
    if key not in kinds:
        return
    if not isinstance(value, Mapping):
        kinds[key] = _named(key, str(value))
        return
    if given := value.get("class_path"):
        kinds[key] = _named(key, str(given))
    arguments = value.get("init_args") if "class_path" in value else value
    for name, given in arguments.items() if isinstance(arguments, Mapping) else ():
        if wrong := _unknown(kinds[key], str(name)):
            raise ArgumentError(None, _refusal(key, kinds[key], wrong))
        _check_value(key, kinds[key], str(name), given)


def _is_misplaced(key: str) -> bool:
    """Whether a key that stands alone is one below a section, or nearly the name of a section."""
    if key in _own_options():
        return False
    below = any(key in arguments_of(kind) for kinds in sections().values() for kind in kinds)
    return below or bool(get_close_matches(key, sections(), n=1, cutoff=0.75))


@cache
def _own_options() -> set[str]:
    """All options that the sources of the command line name."""
    files = (sources.package("razorlight") / "cli").glob("*.py")
    return {name for file in files for name in re.findall(r'"--(\w+)"', file.read_text("utf-8"))}


def _named(key: str, value: str) -> str | None:
    """The class of razorlight that a value names; None for others, and for what names no class.

    Raises:
        ArgumentError: if a name without a module is of no class that has a short name.
    """
    if key == "trainer" or value.lower() in ("true", "false", "null", "none", ""):
        return key_class(key)
    name = value.rpartition(".")[2]
    known = name in sections()[key] or name in _BASES
    if not known and value.isidentifier() and not Path(value).exists():
        raise ArgumentError(None, f'Parser key "{key}": Expected a dot import path string: {name}')
    return name if name in sections()[key] and value in (name, _path(name)) else None


_BASES = {"LightningModule", "LightningDataModule"}


def _path(name: str) -> str:
    return f"razorlight.{own_classes()[name]}.{name}"


def _unknown(kind: str | None, key: str) -> str | None:
    """The first part of a key that is no argument of a class; None if the class is not known."""
    names = [part for part in key.rstrip("+").split(".") if part not in _STRUCTURE]
    known = arguments_of(kind) if kind else {}
    return names[0] if known and names and names[0] not in known else None


def _check_value(key: str, kind: str | None, name: str, value: Any) -> None:
    """Refuse a value that the annotation of an argument tells to be wrong."""
    name = name.removeprefix("init_args.")
    argument = arguments_of(kind).get(name) if kind else None
    if argument and value != "" and (why := refusal(argument.type, value)):
        place = f"{key}." if kind == "Trainer" else f"{key}: {kind}: "
        raise ArgumentError(None, f"{place}{name}: {why}")


def _refusal(key: str, kind: str | None, wrong: str, typed: str = "") -> str:
    if kind == "Trainer" and typed:
        return f"unrecognized arguments: {typed}"
    if kind == "Trainer":
        return f"trainer: Option {wrong!r} is not accepted"
    return (
        f'Parser key "{key}": Problem with given class_path {_path(str(kind))!r}: '
        f"Option {wrong!r} is not accepted"
    )
