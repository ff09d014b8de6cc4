"""The arguments of classes that configurations name, read from sources, so that torch can wait."""

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from razorlight.cli import sources
from razorlight.cli.help import CALLBACK_KEYS

OURS = ("callbacks", "data", "tasks")
"""The parts of razorlight whose classes have short names in configurations."""


class Argument(NamedTuple):
    """An argument of a class.

    Attributes:
        type: its annotation, as it is written.
        default: its default, as it is written; empty if it must be given.
        help: what the docstring says of it.
    """

    type: str
    default: str
    help: str


Arguments = dict[str, Argument]


@cache
def own_classes() -> dict[str, str]:
    """The part of razorlight that each class with a short name is of, by the name."""
    parts = {part: sources.imported(_front(part)) for part in OURS}
    return {name: part for part, classes in parts.items() for name in classes}


@cache
def arguments_of(name: str) -> Arguments:
    """The arguments of a class of razorlight with a short name, or of Lightning's ``Trainer``."""
    if name == "Trainer":
        trainer = sources.package("lightning") / "pytorch" / "trainer" / "trainer.py"
        return _arguments(name, trainer)
    return _arguments(name, _front(own_classes()[name]))


@cache
def sections() -> dict[str, list[str]]:
    """The classes whose arguments the keys of a configuration may be, by the key above them."""
    kinds = own_classes()
    return {
        "trainer": ["Trainer"],
        "model": [name for name, part in kinds.items() if part == "tasks"],
        "data": [name for name, part in kinds.items() if part == "data"],
        **{key: [each.callback] for key, each in CALLBACK_KEYS.items()},
    }


def _front(part: str) -> Path:
    return sources.package("razorlight") / part / "__init__.py"


def _arguments(name: str, file: Path) -> Arguments:
    found = _find(name, file)
    if found is None:  # a base of Lightning's
        return {}
    node, file = found
    made = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    init = next((part for part in made if part.name == "__init__"), None)
    inherited: Arguments = {}
    if init is None or init.args.kwarg:
        for base in map(ast.unparse, node.bases):
            inherited |= _arguments(base, file)
    if init is None:
        return _fields(node) | inherited
    own, fixed = _own(init, node, file), _passed_on(init, [*inherited])
    return own | {k: a for k, a in inherited.items() if k not in fixed and k not in own}


def _find(name: str, file: Path) -> tuple[ast.ClassDef, Path] | None:
    """A class that a file defines, or imports from razorlight, and the file that defines it."""
    defined = sources.definitions(file).get(name)
    if isinstance(defined, ast.ClassDef):
        return defined, file
    module = sources.modules(file).get(name)
    return _find(name, module) if module else None


def _passed_on(init: ast.FunctionDef, names: list[str]) -> set[str]:
    """The arguments of its base that a class sets itself."""
    for call in ast.walk(init):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
            keywords = {each.arg for each in call.keywords if each.arg}
            return {*names[: len(call.args)], *keywords}
    return set()


def _fields(node: ast.ClassDef) -> Arguments:
    """The arguments of a dataclass."""
    if not any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        return {}
    texts = _texts(ast.get_docstring(node) or "")
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return {
        (name := ast.unparse(each.target)): Argument(
            _unparse(each.annotation), _unparse(each.value), texts.get(name, "")
        )
        for each in fields
    }


def _own(init: ast.FunctionDef, node: ast.ClassDef, file: Path) -> Arguments:
    given, texts = init.args, _texts(ast.get_docstring(node) or ast.get_docstring(init) or "")
    defaults = [None] * (len(given.args) - len(given.defaults)) + [*given.defaults]
    pairs = [*zip(given.args, defaults, strict=True)][1:]  # without self
    pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return {
        arg.arg: Argument(_type(arg.annotation, file), _unparse(default), texts.get(arg.arg, ""))
        for arg, default in pairs
    }


def _type(annotation: ast.expr | None, file: Path) -> str:
    """An annotation, with its aliases written out."""

    def written_out(name: re.Match[str]) -> str:
        meant = sources.alias(file, name[0])
        return _type(*meant) if meant else name[0]

    return re.sub(r"\b_?[A-Z]\w+\b", written_out, _unparse(annotation))


def _unparse(node: ast.expr | None) -> str:
    return ast.unparse(node) if node else ""


def _texts(docstring: str) -> dict[str, str]:
    """What a docstring in Google style says of each argument."""
    _, _, rest = inspect.cleandoc(docstring).partition("\nArgs:\n")
    block = re.split(r"\n(?=\S)", rest)[0]
    entries = re.split(r"^ {4}\**(\w+)(?: \(.*?\))?: *", block, flags=re.MULTILINE)[1:]
    return {name: _plain(text) for name, text in zip(entries[::2], entries[1::2], strict=True)}


def _plain(text: str) -> str:
    """A text without markup, and without the default, which stands beside it."""
    whole = re.sub(r"`+|:\w+:|~[\w.]*\.(?=\w)", "", " ".join(text.split()))
    return re.sub(r" ?Default: \S+$", "", whole)
