"""The files of a data set: its samples, files that are missing, and files of other programs."""

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from razorlight.errors import RazorError

_LEFT_BEHIND = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@__thumb",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "lost+found",
    "system volume information",
    "thumbs.db",
    "desktop.ini",
}
"""Names, in lower case, that archives, notebooks, file servers and desktops give to their own."""


def is_left_behind(name: str) -> bool:
    """Whether a tool left a file or folder of this name beside the user's own.

    That is any hidden name (``.ipynb_checkpoints``, ``.DS_Store``, ``._photo.jpg``) and a few
    known names. Such a folder is no class, and nothing in it is a sample.
    """
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def files_in(folder: Path, suffixes: Sequence[str] = IMG_EXTENSIONS) -> list[Path]:
    """The user's own files in a folder, sorted.

    Args:
        folder: folder to look in; not below it.
        suffixes: ends of the names, in lower case; the files may have them in any case.
    """
    return [folder / entry.name for entry in _own(folder) if _ends(entry, suffixes)]


def subfolders(folder: Path) -> list[str]:
    """The names of the user's own folders in a folder, sorted."""
    return [entry.name for entry in _own(folder) if entry.is_dir()]


def images_below(folder: Path, follow_links: bool = False) -> list[Path]:
    """The user's own image files at any depth, sorted.

    Args:
        folder: folder to look in; it may be missing.
        follow_links: Whether to look into folders behind symbolic links.
    """
    found = []
    for place, folders, files in os.walk(folder, followlinks=follow_links):
        folders[:] = [name for name in folders if not is_left_behind(name)]
        images = [n for n in files if n.lower().endswith(IMG_EXTENSIONS) and not is_left_behind(n)]
        found += [Path(place, name) for name in images]
    return sorted(found)


def first_image(*folders: Path | None) -> Path | None:
    """One of the user's own image files in the first folder that has any, always the same.

    Args:
        folders: folders to look in, at any depth; None is passed over.
    """
    for folder in folders:
        for place, below, files in os.walk(folder or "", followlinks=True):
            below[:] = sorted(name for name in below if not is_left_behind(name))
            for name in sorted(files):
                if name.lower().endswith(IMG_EXTENSIONS) and not is_left_behind(name):
                    return Path(place, name)
    return None


def _own(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        own = [entry for entry in entries if not is_left_behind(entry.name)]
    return sorted(own, key=lambda entry: entry.name)


def _ends(entry: os.DirEntry[str], suffixes: Sequence[str]) -> bool:
    return entry.name.lower().endswith(tuple(suffixes)) and not entry.is_dir()


def pair_by_stem(
    images: Path,
    maps: Path,
    remedy: str,
    mask_suffix: str | None = None,
    formats: Sequence[str] = (".png",),
) -> list[tuple[Path, Path]]:
    """Match each image with the map of the same stem.

    Args:
        images: folder of image files.
        maps: folder of masks or depth maps.
        remedy: way to get the two folders, for the message.
        mask_suffix: end of the stems of masks, after the stem of the image. Files without it are no
            masks. None for maps whose names have none.
        formats: ends of the names of maps, in lower case.

    Returns:
        Pairs ``(image, map)``, sorted by the image's name.

    Raises:
        RazorError: for a missing folder, no images or maps, an image or map without its partner, or
            two maps of one stem.
    """
    require_folder(images, remedy)
    require_folder(maps, remedy)
    image_files = files_in(images)
    require_images(image_files, images, remedy)
    suffix = mask_suffix or ""
    map_files = [f for f in files_in(maps, formats) if f.stem.endswith(suffix)]
    if not map_files:
        ending = f" with names that end in {suffix}" if suffix else ""
        raise RazorError(f"no {' '.join(formats)} files{ending} in {maps}; {remedy}")
    map_of = {f.stem.removesuffix(suffix): f for f in map_files}
    twice = [f for f in map_files if map_of[f.stem.removesuffix(suffix)] != f]
    if twice:
        other = map_of[twice[0].stem.removesuffix(suffix)]
        raise RazorError(f"{twice[0]} and {other} have one stem; move one of them away")
    alone = [f for f in image_files if f.stem not in map_of]
    alone += [map_of[stem] for stem in sorted(set(map_of) - {f.stem for f in image_files})]
    if alone:
        found = "" if mask_suffix is None else _common_suffix(image_files, map_files)
        way_out = f"set mask_suffix: {found}" if found else "add what is missing or move these away"
        raise RazorError(
            f"{len(alone)} files of {images} and {maps} lack a partner of the same stem, "
            f"first {_first(alone)}; {way_out}"
        )
    return [(f, map_of[f.stem]) for f in image_files]


def _common_suffix(images: Sequence[Path], maps: Sequence[Path]) -> str:
    """What follows the stem of every image in the stem of a map; empty if nothing does."""
    stems, first = {f.stem for f in maps}, images[0].stem
    suffixes = [stem.removeprefix(first) for stem in sorted(stems) if stem.startswith(first)]
    return next((s for s in suffixes if all(f.stem + s in stems for f in images)), "")


def require_folder(folder: Path, remedy: str) -> None:
    """Refuse a missing folder.

    Raises:
        RazorError: naming the folder and ``remedy``, the way to get it.
    """
    if not folder.is_dir():
        raise RazorError(f"no folder {folder}; {remedy}")


def require_images(images: Sequence[Path], folder: Path, remedy: str) -> None:
    """Refuse a folder in which no image was found.

    Raises:
        RazorError: naming the folder and ``remedy``, the way to fill it.
    """
    if not images:
        raise RazorError(f"no images in {folder}; {remedy}")


def require_pairs(pairs: Sequence[tuple[Path, Path]], remedy: str) -> None:
    """Refuse pairs of files that a list of the data set names, if a file is missing.

    Args:
        pairs: image and map of each sample.
        remedy: way to get the data, for the message.

    Raises:
        RazorError: naming the first missing files.
    """
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise RazorError(f"{len(missing)} files are missing, first {_first(missing)}; {remedy}")


def require_below(root: Path, path: str | Path) -> Path:
    """Refuse a file that a list of a data set names, if it is not below the data's folder.

    Symbolic links may lead anywhere: whoever made the folder made them, while a list may come from
    somebody else.

    Raises:
        RazorError: naming the file.
    """
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise RazorError(f"{path} is not below {root}; correct the list of files that names it")
    return Path(path)


@contextmanager
def missing_data(what: str, root: Path, remedy: str) -> Iterator[None]:
    """Turn any error over absent or damaged data into one line.

    Args:
        what: name of the data set.
        root: folder of the data.
        remedy: way to get the data, for the message.

    Raises:
        RazorError: in place of a failed download, a missing file, or one that does not parse.
    """
    try:
        yield
    except RazorError:
        raise
    except Exception as error:  # of any kind: readers of JSON, pickles and MAT files have their own
        reason = " ".join("".join(traceback.format_exception_only(error)).split())
        raise RazorError(f"{what}: no usable copy in {root} ({reason}); {remedy}") from error


def _first(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths[:3])
