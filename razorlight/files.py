"""Files that are whole at every moment, whenever the process is killed or the disk is full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give the place of a new file, which takes the place of ``path`` once it is whole.

    It lies beside ``path``: to move it from another file system would be to copy it, which can be
    cut short.

    Raises:
        OSError: naming ``path``, which stays as it was; nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        yield new
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        new.unlink(missing_ok=True)


def relative(path: str | Path) -> Path:
    """A path as seen from the working directory, if it lies below; else from the root."""
    absolute = Path(path).absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def drop_torn_line(path: Path) -> None:
    """Cut off what a write that was cut short left behind the last whole line of ``path``."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
