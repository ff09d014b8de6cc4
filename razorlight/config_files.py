"""The configurations that come with razorlight, by their bare names."""

from difflib import get_close_matches
from pathlib import Path

from razorlight.errors import RazorError


def shipped_folder() -> Path:
    """Where they are: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config(name: str) -> str:
    """Find a configuration file.

    Args:
        name: the path of a file, or else the name of a shipped one, such as ``seg_ade.yaml`` or
            ``debug/fast.yaml``.

    Returns:
        Its path.

    Raises:
        RazorError: if there is neither; it gives the nearest names.
    """
    folder = shipped_folder()
    for path in (Path(name), folder / name):
        if path.is_file():
            return str(path)
    shipped = [path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")]
    near = get_close_matches(name, sorted(shipped), n=3, cutoff=0)
    raise RazorError(f"config: there is no file {name}; shipped are {', '.join(near)}")
