"""``razorlight list``: the names that can be chosen, each with a line."""

import ast
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from razorlight.cli import sources
from razorlight.cli.help import CALLBACK_KEYS
from razorlight.config_files import find_config, shipped_configs
from razorlight.errors import RazorError

Groups = Mapping[str, Mapping[str, str]]
"""By heading, the names and a line on each, out of its own docstring or first comment."""


def show(kind: str, pattern: str = "*") -> None:
    """Print the names of a kind, a line each.

    Args:
        kind: a key of :data:`KINDS`.
        pattern: glob over the names.

    Raises:
        RazorError: if no name matches. The message gives the nearest names.
    """
    groups = KINDS[kind]()
    matching = {name for group in groups.values() for name in group if fnmatchcase(name, pattern)}
    if not matching:
        near = get_close_matches(pattern.strip("*"), names(kind), n=3, cutoff=0)
        raise RazorError(
            f"list {kind}: {pattern!r} matches nothing; the nearest names are {', '.join(near)}"
        )
    for heading, group in groups.items():
        chosen = {name: text for name, text in group.items() if name in matching}
        if heading and chosen:
            print(f"# {heading}")
        _print_columns(chosen)


def names(kind: str) -> list[str]:
    """The names of a kind, a key of :data:`KINDS`."""
    return [name for group in KINDS[kind]().values() for name in group]


def _print_columns(group: Mapping[str, str]) -> None:
    # a person gets lines that fit the window, a program gets them whole
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    column = min(32, max(map(len, group), default=0))
    for name, text in group.items():
        rest = max(20, width - max(column, len(name)) - 2)
        print(f"{name:{column}}  {textwrap.shorten(text, rest, placeholder=' ...')}".rstrip())


def _configs() -> Groups:
    return {"": {name: _first_comment(Path(find_config(name))) for name in shipped_configs()}}


def _first_comment(config: Path) -> str:
    comment = re.match(r"(?:#.*\n)*", config.read_text(encoding="utf-8"))
    assert comment is not None
    text = comment[0].split(":\n")[0]  # commands follow
    return sources.first_sentence(text.replace("\n# ", " ").strip("# \n"))


def _datasets() -> Groups:
    classes = sources.imported(sources.package("razorlight") / "data" / "__init__.py")
    return {"": {name: sources.summary(node) for name, node in classes.items() if _is_data(node)}}


def _is_data(node: sources.Definition) -> bool:
    """Whether a class is a data set, and not the base of all."""
    return isinstance(node, ast.ClassDef) and "ABC" not in map(ast.unparse, node.bases)


def _models() -> Groups:
    return {
        "SegmentationTask: architecture": sources.smp_architectures(),
        "SegmentationTask: encoder (or tu-NAME of a model below)": sources.smp_encoders(),
        "ClassificationTask: model": sources.timm_models(),
    }


def _recipes() -> Groups:
    return {"--razor.recipe": _table("planning/recipes.py", "RECIPES")}


def _callbacks() -> Groups:
    classes = sources.imported(sources.package("razorlight") / "callbacks" / "__init__.py")
    lines = {name: sources.summary(node) for name, node in classes.items()}
    keyed = {key: f"{name}: {lines.pop(name)}" for key, (name, *_) in CALLBACK_KEYS.items()}
    heading = "keys, such as --razor false or --razor.recipe compact"
    return {heading: keyed, "in trainer.callbacks": lines}


def _codecs() -> Groups:
    return {"": _table("codecs/parsing.py", "CODECS")}


def _table(module: str, variable: str) -> dict[str, str]:
    """The classes or functions that a module of razorlight gives names to."""
    file = sources.package("razorlight") / module
    known = {**sources.imported(file), **sources.definitions(file)}
    named = sources.table(sources.assigned(file, variable))
    return {name: sources.summary(known[ast.unparse(node)]) for name, node in named.items()}


KINDS: Mapping[str, Callable[[], Groups]] = {
    "configs": _configs,
    "datasets": _datasets,
    "models": _models,
    "recipes": _recipes,
    "codecs": _codecs,
    "callbacks": _callbacks,
}
"""The kinds that can be listed, and the functions that find them."""
