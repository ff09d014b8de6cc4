"""tests/MESSAGES.md lists every message that razorlight refuses something with."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def messages():
    """The text of each RazorError that the package makes, with its expressions in braces."""
    for file in sorted((ROOT / "razorlight").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "RazorError":
                yield f"{file.relative_to(ROOT)}: {text(node.args[0])}"


def text(node):
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    if isinstance(node, ast.Constant):
        return node.value
    return "{" + ast.unparse(getattr(node, "value", node)).replace("|", "or") + "}"


def test_every_message_is_listed():
    listed = re.findall(r"^\| `(.*?)` \|", (ROOT / "tests/MESSAGES.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(message.replace("`", "'") for message in messages())
