"""What the README and the pages of the documentation show, as code to run."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(text, *languages):
    """The fenced blocks of ``text`` in one of ``languages``, as pairs of language and content."""
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell(*paths):
    """All shell blocks of some pages."""
    return "\n".join(code for path in paths for _, code in blocks(path.read_text(), "bash"))


def run_python(code):
    """Run a program as the main one would be run, in this process."""
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})


def run_apart(code, folder):
    """What a program prints that runs in a process of its own, in ``folder``."""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
