"""The configurations that come with razorlight, by their bare names."""

import re
import shutil
from difflib import get_close_matches
from pathlib import Path

from razorlight.errors import RazorError


def shipped_folder() -> Path:
    """The folder of the shipped configurations: in an installed package, or in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_configs() -> list[str]:
    """The names of the shipped configurations, as ``--config`` takes them.

    Files in ``parts/`` are left out: other configurations include them, and nobody runs them alone.
    """
    folder = shipped_folder()
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("parts/"))


def find_config(name: str) -> str:
    """Find a configuration file.

    Args:
        name: the path of a file, or else the name of a shipped one, such as ``seg_ade.yaml`` or
            ``debug/fast.yaml``.

    Returns:
        The path of the file.

    Raises:
        RazorError: if there is no such file. The message gives the nearest names.
    """
    for path in (Path(name), shipped_folder() / name):
        if path.is_file():
            return str(path)
    (near,) = get_close_matches(name, shipped_configs(), n=1, cutoff=0)
    raise RazorError(
        f"config: there is no file {name}; the nearest shipped one is {near}, and "
        "`razorlight list configs` names all"
    )


def copy_config(name: str, target: Path) -> Path:
    """Copy a configuration to edit, and put the parts that it names beside it.

    Args:
        name: path or name of the configuration, as :func:`find_config` takes it.
        target: the new file, or the folder to put it into.

    Returns:
        The path of the new file.

    Raises:
        RazorError: if there is no such configuration, or the new file exists already.
    """
    source = Path(find_config(name))
    copy = target / source.name if target.is_dir() else target
    if copy.exists():
        raise RazorError(f"cp: {copy} exists already; give another TARGET, or move it away")
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copy)
    for part in re.findall(r"parts/\S+\.yaml", source.read_text()):
        beside = copy.parent / part
        if not beside.exists() and (source.parent / part).is_file():
            beside.parent.mkdir(exist_ok=True)
            shutil.copyfile(source.parent / part, beside)
    return copy
