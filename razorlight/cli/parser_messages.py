"""The errors of jsonargparse and omegaconf, in plain words."""

import ast
import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from inspect import signature

from razorlight.cli import sources
from razorlight.cli.extras import install_missing
from razorlight.cli.help import CALLBACK_KEYS
from razorlight.cli.signatures import arguments_of, own_classes, sections
from razorlight.cli.values import expected


def explain(message: str) -> str:
    """The key that is wrong and why, and the way out, such as the nearest known name.

    Args:
        message: message of an error of jsonargparse or omegaconf.
    """
    gist = _gist(message)
    if package := install_missing(gist):
        gist = re.sub("No module named .*", package, gist)
    way_out = _way_out(gist)
    for pattern, plain in _PLAIN.items():
        gist = re.sub(pattern, plain, gist)
    if one := re.search(r"expected type list, got ([^\s\[{]+)$", gist):
        way_out = f"write it as [{one[1]}]"
    return f"{gist}; {way_out}" if way_out else gist


_PLAIN = {
    r'Parser key "([\w.]+)":': r"\1:",
    r"Problem with given class_path '[\w.]*?(\w+)':": r"\1:",
    r"Type \S+\[.*\] expects a function or a callable class: ": "",
    r"\. Got value: Namespace\(.*\)": "",
    r"Expected an? <class '(\w+)'>\.?": r"expected type \1,",
    r"Got value:": "got",
    r"Expected a dot import path string:": "there is no class",
    r"Problems parsing config: ": "",
    r"No module named '([\w.]+)'": (
        r"there is no module \1; start in its folder, or put this into PYTHONPATH"
    ),
    r"Unexpected config: (.*)": r"these are no keys with values: \1",
    r"arguments are required: (?:fit|validate|test|predict)\.": "arguments are required: ",
    r", (?:fit|validate|test|predict)\.": ", ",
    r' in "<unicode string>",': " in",
}
"""Wording of jsonargparse, by regular expression, and plainer words for it."""


def _gist(message: str) -> str:
    """The reason of an error, out of a message with all types that were tried.

    If a value may have several types, jsonargparse lists why each of them refused it, as nested
    bullets. The first of each list is the type that was meant. The first value is the innermost.
    """
    kept, depth, types = [], -1, ""
    for line in message.splitlines():
        text = line.lstrip()
        bullet, text = text.startswith("- "), text.removeprefix("- ")
        if text.startswith("Expected a path but"):  # whether a word names a file is tried first
            continue
        if bullet:
            indent = len(line) - len(line.lstrip())
            if indent <= depth:
                break
            depth = indent
        types = text if text.startswith("Subtypes:") else types
        if not text.startswith(("Does not validate", "Subtypes:", "Errors:", "Given value")):
            kept.append(text)
    value = re.search(r"Given value: (.*?)(?:\. Got value.*)?$", message, re.MULTILINE)
    if value and kept[-1].startswith("Expected a") and kept[-1].endswith(("'>", "]")):
        kept[-1] = f"{_expected(types) or kept[-1]} Got value: {value[1]}"
    gist = " ".join(kept)
    return re.sub(r"Expected a typing\.Literal\[.*?\]\.?", lambda one: _expected(one[0]), gist)


def _expected(types: str) -> str:
    """The values or types of a list of types that were tried; empty if there are others."""
    words = re.findall(r"[\w+-]+", " ".join(re.findall(r"Literal\[(.*?)\]", types)))
    names = [n for n in re.findall(r"<class '(?:\w+\.)*(\w+)'>", types) if n != "NoneType"]
    return expected(names, [*dict.fromkeys(words)]) if words or names else ""


def _way_out(gist: str) -> str:
    """What to say in place of what is wrong; empty if nobody knows."""
    key = re.search(r'^(?:\S+: )?Parser key "([\w.]+)"|^\S*?(\w+\.callbacks):', gist)
    place = next(filter(None, key.groups()), "") if key else ""
    if place in CALLBACK_KEYS and "dot import path" in gist:
        return f"give true, false or arguments, as --{place}.{CALLBACK_KEYS[place].example}"
    if "class_path='torch.optim.Optimizer'" in gist:
        return "name its class first, such as --model.optimizer torch.optim.AdamW"
    file = re.search(r"unrecognized arguments: (\S+\.ya?ml)$", gist)
    if file:
        return f"did you mean --config {file[1]}?"
    unknown = re.search(r"(?:[Oo]ption '|path string: |no attribute '|arguments: --)([\w.]+)", gist)
    if unknown is None:
        return ""
    homes = [home for home in _homes(unknown[1]) if home.rpartition(".")[0] != place]
    if homes and re.search("[Oo]ption |arguments", gist):
        option = "" if re.match(r"\S+\.ya?ml: ", gist) else "--"
        return f"did you mean {' or '.join(option + home for home in homes)}?"
    known = _known_names(gist)
    wrong = next((part for part in unknown[1].split(".") if part not in known), "")
    near = get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _homes(name: str) -> Iterator[str]:
    """The keys that end with a name, whole: ``max_epochs`` is ``trainer.max_epochs``."""
    name = name.removeprefix("init_args.")
    for key, kinds in sections().items():
        if any(name in arguments_of(kind) for kind in kinds):
            yield f"{key}.{name}"
    if name in _OF_OPTIMIZERS:
        yield f"model.optimizer.{name}"


_OF_OPTIMIZERS = {"lr", "weight_decay", "momentum", "betas", "nesterov"}


def _known_names(gist: str) -> set[str]:
    if module := re.search(r"module '([\w.]+)' has no attribute", gist):
        return set(dir(import_module(module[1])))
    if classes := re.findall(r"class_path[ =]'([\w.]+)\.(\w+)'", gist):
        where, name = classes[-1]
        if "dot import path" not in gist:
            ours = name in own_classes() and where.startswith("razorlight")
            kind = None if ours else getattr(import_module(where), name)
            return set(signature(kind).parameters if kind else arguments_of(name))
    names = {*own_classes(), *_all("lightning", "pytorch/callbacks"), "Trainer"}
    names.update(_all("lightning", "pytorch/loggers"))
    names.update(_all("torch", "optim") if "optimizer" in gist else arguments_of("Trainer"))
    return names | {"trainer", "model", "data", "class_path", "init_args", *CALLBACK_KEYS}


def _all(package: str, folder: str) -> list[str]:
    """The public names of a package's folder."""
    listed = sources.assigned(sources.package(package) / folder / "__init__.py", "__all__")
    return [ast.literal_eval(each) for each in listed.elts] if isinstance(listed, ast.List) else []
