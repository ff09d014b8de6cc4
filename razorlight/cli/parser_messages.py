"""The errors of jsonargparse and omegaconf, in plain words."""

import re
from difflib import get_close_matches
from importlib import import_module
from inspect import signature

from lightning.pytorch import Trainer

from razorlight import callbacks
from razorlight.cli.configs import NAMESPACES
from razorlight.cli.help import CALLBACK_KEYS


def explain(message: str) -> str:
    """The key that is wrong and why, and the nearest known name if a name is unknown.

    Args:
        message: message of an error of jsonargparse or omegaconf.
    """
    gist = _gist(message)
    near = _nearest(gist)
    for pattern, plain in _PLAIN.items():
        gist = re.sub(pattern, plain, gist)
    if by_key := _by_key(gist):
        return by_key
    return f"{gist}; did you mean {near}?" if near else gist


_PLAIN = {
    r'Parser key "([\w.]+)":': r"\1:",
    r"Problem with given class_path '[\w.]*?(\w+)':": r"\1:",
    r"Type \S+\[.*\] expects a function or a callable class: ": "",
    r"\. Got value: Namespace\(.*\)": "",
    r"Expected an? <class '(\w+)'>\.?": r"expected type \1,",
    r"Got value:": "got",
    r"Expected a dot import path string:": "there is no class",
    r"Problems parsing config: ": "",
    r"arguments are required: (?:fit|validate|test|predict)\.": "arguments are required: ",
    r", (?:fit|validate|test|predict)\.": ", ",
    r' in "<unicode string>",': " in",
}
"""Wording of jsonargparse, by regular expression, and plainer words for it."""


def _by_key(gist: str) -> str | None:
    """The reason of an error that the key of a callback is the way out of; None for any other."""
    value = re.fullmatch(r"(\w+): there is no class (.*)", gist)
    if value and value[1] in CALLBACK_KEYS:
        key, example = value[1], CALLBACK_KEYS[value[1]].example
        return f"{key}: give true, false or arguments, as --{key}.{example}; got {value[2]}"
    option = re.fullmatch(r"trainer\.callbacks: \w+: Option '(\w+)' is not accepted", gist)
    for key, (name, *_) in CALLBACK_KEYS.items():
        if option and option[1] in signature(getattr(callbacks, name)).parameters:
            return f"{gist}; {name} has it: say --{key}.{option[1]}"
    return None


def _gist(message: str) -> str:
    """The reason of an error, out of a message with all types that were tried.

    If a value may have several types, jsonargparse lists why each of them refused it, as nested
    bullets. The first of each list is the type that was meant. The first value is the innermost.
    """
    kept, depth = [], -1
    for line in message.splitlines():
        text = line.lstrip()
        if text.startswith("- "):
            indent = len(line) - len(text)
            if indent <= depth:
                break
            depth = indent
        if not text.startswith(("Does not validate", "Subtypes:", "Errors:", "Given value")):
            kept.append(text.removeprefix("- "))
    value = re.search(r"Given value: (.*)", message)
    if value and kept[-1].endswith("'>"):  # a type was expected
        kept.append(f"Got value: {value[1]}")
    return " ".join(kept)


def _nearest(gist: str) -> str:
    """The known name that is nearest to the unknown name in ``gist``; empty if there is none."""
    unknown = re.search(r"(?:[Oo]ption '|path string: |no attribute '|arguments: --)([\w.]+)", gist)
    if unknown is None:
        return ""
    known = _known_names(gist)
    wrong = next((part for part in unknown[1].split(".") if part not in known), "")
    return "".join(get_close_matches(wrong, known, n=1))


def _known_names(gist: str) -> set[str]:
    if module := re.search(r"module '([\w.]+)' has no attribute", gist):
        return set(dir(import_module(module[1])))
    if classes := re.findall(r"class_path[ =]'([\w.]+)\.(\w+)'", gist):
        where, name = classes[-1]
        return set(signature(getattr(import_module(where), name)).parameters)
    names = {name for namespace in NAMESPACES for name in namespace.__all__}
    names.update(signature(Trainer).parameters)
    return names | {"trainer", "model", "data", "class_path", "init_args", *CALLBACK_KEYS}
