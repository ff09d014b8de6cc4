"""Values that the annotation of an argument alone tells to be wrong, before torch is imported."""

import ast
from collections.abc import Iterator
from typing import Any

import yaml

_SCALARS = {"int": int, "float": float, "bool": bool}


def refusal(annotation: str, value: Any) -> str:
    """Why a value is wrong; empty if it is right, or if nothing is sure.

    Sure are numbers, truth values and words of a list. Any other type may take what it can.

    Args:
        annotation: the type of the argument, as it is written.
        value: as YAML gives it; a word of the command line is a string.

    Example:
        >>> refusal("float | None", "much")
        'expected type float, got much'
        >>> refusal("Literal['ce', 'dice']", "cee")
        'expected one of ce, dice, got cee'
        >>> refusal("str | int", "whatever")
        ''
    """
    types, choices = [], []
    for part in _parts(ast.parse(annotation, mode="eval").body):
        name = ast.unparse(part)
        if name in _SCALARS:
            types.append(name)
        elif isinstance(part, ast.Constant):
            choices += [] if part.value is None else [str(part.value)]
        else:
            return ""
    if not isinstance(value, str) or "$" in value:  # ${...} stands for something else
        return ""
    if _is_plain(value) or value in choices:
        return ""
    return f"{expected(types, [*dict.fromkeys(choices)])} got {value}"


def expected(types: list[str], choices: list[str]) -> str:
    """What a message says of the types and the words that an argument takes."""
    of_type = f"type {' or '.join(types)}" if types else ""
    of_list = f"one of {', '.join(choices)}" if len(choices) > 1 else "".join(choices)
    return f"expected {' or '.join(filter(None, [of_type, of_list]))},"


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    """The types of a union, and the values of a ``Literal``."""
    if isinstance(node, ast.BinOp):
        yield from (*_parts(node.left), *_parts(node.right))
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in _UNIONS:
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for each in inner:
            yield from _parts(each)
        if ast.unparse(node.value) == "Optional":
            yield ast.Constant(None)
    else:
        yield node


_UNIONS = {"Union", "Optional", "Literal"}


def _is_plain(word: str) -> bool:
    """Whether a word is a number, a truth value or nothing, of which jsonargparse judges."""
    try:
        float(word)
        return True
    except ValueError:
        return not isinstance(yaml.safe_load(word), str)
