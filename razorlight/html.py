"""Pages of HTML that need nothing beside them."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from razorlight.files import replaced

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 56rem; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; text-align: right; }
th:first-child, td:first-child { overflow-wrap: anywhere; text-align: left; }
.bar { display: flex; height: 1.6rem; margin: .2rem 0 .8rem; }
.key { border-radius: .2rem; display: inline-block; height: .8rem; width: .8rem; }
.key { margin-right: .5rem; }
.text { text-align: left; }
.wide { overflow-x: auto; }
img { background: white; border-radius: .4rem; height: auto; max-width: 100%; }
"""


def write_html(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page.

    Args:
        path: the new file. An existing one is replaced.
        title: the heading.
        parts: what follows it, as HTML.
    """
    head = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    content = "\n".join([head, f"<h1>{escape(title)}</h1>", *parts, "</html>"])
    with replaced(path) as new:
        new.write_text(content, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells in HTML. The first column is text, and others are numbers."""
    first = "".join(f"<th>{cell}</th>" for cell in head)
    others = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{first}</tr>{others}</table></div>'


def picture(png: bytes, words: str) -> str:
    """A PNG, within the page.

    Args:
        png: its content.
        words: what it shows, for who cannot see it.
    """
    source = b64encode(png).decode()
    return f'<p><img alt="{escape(words)}" src="data:image/png;base64,{source}"></p>'
