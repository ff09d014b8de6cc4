"""Docstrings as Markdown, for the site: Sphinx's roles become links, ``::`` a colon.

And ``Example:`` becomes ``Examples:``, whose code griffe knows.
"""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")


class Markdown(griffe.Extension):
    """What mkdocstrings runs over each object that has a docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = _ROLE.sub(_link, obj.docstring.value)
            text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def _link(role: re.Match[str]) -> str:
    short, path = role.groups()
    name = path.rpartition(".")[2] if short else path
    # optional: not every name has an entry in the reference
    return f'<autoref optional identifier="{path}"><code>{name}</code></autoref>'
