"""Files that stay whole when the process is killed or the disk is full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Replace ``path`` by a new file, once the new file is whole.

    The new file is written beside ``path``, because a move from another file system would be a
    copy, which can be cut short.

    Yields:
        The path to write to.

    Raises:
        OSError: if the new file cannot be written. The error names ``path``, which stays as it was.
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
    """The relative path of a file below the working directory; the absolute path of any other."""
    absolute = Path(path).absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def drop_torn_line(path: Path) -> None:
    """Remove an unfinished last line from ``path``, which a killed process may have left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
