"""What befalls a run from outside, in one line with the way out."""

import errno

from razorlight.memory.shortage import is_shortage, way_out

_NO_SPACE = "free some space, then go on with --ckpt_path last"
_NO_FOLDER = "let the run write elsewhere: save_dir of its logger, or trainer.default_root_dir"
_DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _NO_SPACE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _NO_FOLDER),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), _NO_FOLDER),
}


def explain_accident(error: Exception) -> str | None:
    """What happened and the way out, if ``error`` is no fault of the program.

    Args:
        error: as it came out of Lightning's trainer.

    Returns:
        One line; None for what remains to be raised as it is.
    """
    gist = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.strerror}: {error.filename or 'a file of the run'}; {_DISK[error.errno]}"
    if is_shortage(error):
        return f"out of memory: {way_out(error)} ({gist})"
    if "DataLoader worker" in gist:
        return f"a process that loads data died; take fewer of them, data.num_workers ({gist})"
    if gist.startswith("Error(s) in loading state_dict"):
        return f"ckpt_path: the checkpoint is of another network: {' '.join(str(error).split())}"
    return None
