"""Glob patterns over fully-qualified module or parameter names."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from razorlight.errors import RazorError


def matches(name: str, pattern: str) -> bool:
    """Whether ``pattern`` matches ``name`` or the name of a module that contains it.

    ``encoder`` and ``encoder.*`` both match ``encoder.conv1``; ``*.norm`` matches
    ``blocks.0.norm`` and everything below it.
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of ``patterns`` matches ``name`` (see :func:`matches`)."""
    return any(matches(name, pattern) for pattern in patterns)


def check_patterns(patterns: Iterable[str], names: Sequence[str], what: str) -> None:
    """Refuse a pattern that matches none of ``names``.

    Args:
        patterns: globs given by the user.
        names: all fully-qualified names that a pattern may match.
        what: the name of the argument that holds the patterns, for the message.

    Raises:
        RazorError: if a pattern matches nothing, or ``patterns`` is a string. The message gives the
            most similar names.
    """
    if isinstance(patterns, str):
        raise RazorError(f"{what}: give a list of patterns, [{patterns!r}], and no string")
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            near = get_close_matches(pattern.strip("*."), names, n=3, cutoff=0.3) or names[:3]
            raise RazorError(
                f"{what}: pattern {pattern!r} matches nothing; names look like {', '.join(near)}"
            )


def without_numbers(place: str) -> str:
    """Turn ``blocks.3.attn`` into ``blocks.*.attn``, so that equal blocks share one line."""
    return ".".join("*" if part.isdigit() else part for part in place.split("."))
