"""Values that a user gives for the fields of a dataclass, such as those of a codec in YAML."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from razorlight.errors import RazorError

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a name",
    type(None): "null",
}


def check_types(of: type, given: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse values that are not of the types of their fields.

    Args:
        of: a dataclass whose fields are of plain types, None, or a Literal of names.
        given: values by the names of fields. A name that is no field is passed over.
        prefix: how the message begins.

    Raises:
        RazorError: for a value of another type. The message names the field and its types.
    """
    hints = get_type_hints(of)
    for name, value in given.items():
        types = _types(hints[name]) if name in hints else [type(value)]
        if not any(_is_of(value, one) for one in types):
            words = " or ".join(_WORDS.get(one, one.__name__) for one in types)
            raise RazorError(f"{prefix}{name} must be {words}, got {value!r}")


def as_number(value: Any) -> Any:
    """The number in a string, such as ``inf`` or ``1e5``, which are strings in YAML.

    Any other value is returned as it is.
    """
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _types(hint: Any) -> list[type]:
    if get_origin(hint) is Literal:
        return [str]
    return [one for part in get_args(hint) for one in _types(part)] or [hint]


def _is_of(value: Any, one: type) -> bool:
    if one is float:
        return type(value) is int or (type(value) is float and not math.isnan(value))
    return type(value) is one
