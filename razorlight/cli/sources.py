"""Names and docstrings, read from source files, so that neither torch nor others are imported."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef

_TIMM_MODEL = re.compile(
    r"^@register_model\n(?:@.*\n)*def (\w+)\((?:.|\n)*?\)(?:\s*->.*)?:.*\n"
    r'(?:\s+r?"""\s*(.*?)\s*(?:"""|\n))?',
    re.MULTILINE,
)
"""A function that makes a model, and the first line of its docstring."""


def package(name: str) -> Path:
    """The folder of an installed package."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def definitions(file: Path) -> dict[str, Definition]:
    """The classes and functions that a file defines at its top, by name."""
    return {node.name: node for node in _parse(file) if isinstance(node, Definition)}


def imported(file: Path) -> dict[str, Definition]:
    """The classes and functions that a file imports from modules of razorlight, by name."""
    found = {name: definitions(module).get(name) for name, module in modules(file).items()}
    return {name: node for name, node in found.items() if node is not None}


def modules(file: Path, of: str = "razorlight") -> dict[str, Path]:
    """The files of a package from which a file imports, by the imported name."""
    found = {}
    for node in _parse(file):
        if isinstance(node, ast.ImportFrom) and node.module:
            path = package(of).parent.joinpath(*node.module.split("."))
            if (module := path.with_suffix(".py")).is_file():
                found.update({alias.name: module for alias in node.names})
    return found


def assigned(file: Path, name: str) -> ast.expr | None:
    """The value that a file assigns, at its top, to a variable whose name matches a pattern."""
    for node in _parse(file):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if re.fullmatch(name, ast.unparse(target)):
                return node.value
    return None


def alias(file: Path, name: str) -> tuple[ast.expr, Path] | None:
    """What a name stands for that a file assigns or imports, and the file that assigns it."""
    if value := assigned(file, name):
        return value, file
    module = modules(file).get(name) or modules(file, of="lightning").get(name)
    return alias(module, name) if module else None


def table(value: ast.expr | None) -> dict[str, ast.expr]:
    """The values of a written-out dict, by key."""
    assert isinstance(value, ast.Dict)
    keys = [ast.literal_eval(key) for key in value.keys if key]
    return dict(zip(keys, value.values, strict=True))


def summary(definition: Definition) -> str:
    """The first sentence of a docstring, without markup and full stop."""
    text = " ".join((ast.get_docstring(definition) or "").split("\n\n")[0].split())
    return first_sentence(re.sub(r"`+_*|\*(\w+)\*", r"\1", text))


def first_sentence(text: str) -> str:
    """The first sentence of a text, without its full stop."""
    return re.split(r"(?<=\.)\s", text)[0].removesuffix(".")


def timm_models() -> dict[str, str]:
    """All of ``timm.list_models()``, and the first lines of their docstrings."""
    files = sorted((package("timm") / "models").glob("*.py"))
    # a regular expression reads these three megabytes 25 times as fast as ast
    found = [match for file in files for match in _TIMM_MODEL.findall(file.read_text("utf-8"))]
    return {name: text.removesuffix(".") for name, text in sorted(found)}


def smp_architectures() -> dict[str, str]:
    """All architectures of segmentation_models_pytorch, and their docstrings' first sentences."""
    smp = package("segmentation_models_pytorch")
    modules = [definitions(file) for file in smp.glob("decoders/*/model.py")]
    known = {name: node for module in modules for name, node in module.items()}
    classes = assigned(smp / "__init__.py", "_MODEL_ARCHITECTURES")
    assert isinstance(classes, ast.List)
    return {name: summary(known[name]) for name in map(ast.unparse, classes.elts)}


def smp_encoders() -> dict[str, str]:
    """All of segmentation_models_pytorch's own encoders, and the names of their classes."""
    found = {}
    for file in sorted(package("segmentation_models_pytorch").glob("encoders/*.py")):
        if encoders := assigned(file, r"\w+_encoders"):
            for name, settings in table(encoders).items():
                found[name] = ast.unparse(table(settings)["encoder"])
    return found


@cache
def _parse(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body
