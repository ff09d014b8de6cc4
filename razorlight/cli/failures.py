"""What went wrong, as an exit status and one line: the one place where errors become lines."""

import argparse
import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

from razorlight.cli.extras import install_missing
from razorlight.cli.help import PARSED_BY_LIGHTNING
from razorlight.cli.parser_messages import explain
from razorlight.cli.wrong_checkpoint import explain_mismatch
from razorlight.errors import RazorError, Terminated

FAILED, MISUSED = 1, 2
"""Exit statuses: a mistake that a run met, one in arguments or configuration."""

INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses: after Ctrl-C, after SIGTERM."""

_NO_SPACE = "free some space, then go on with --ckpt_path last"
_NO_FOLDER = "let the run write elsewhere: save_dir of its logger, or trainer.default_root_dir"
_DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _NO_SPACE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _NO_FOLDER),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), _NO_FOLDER),
}
"""The way out, by the number of an error of the operating system."""


@dataclass(frozen=True)
class Failure:
    """How the command line ends.

    Attributes:
        status: the exit status.
        line: line to print; empty if the user ended the run.
    """

    status: int
    line: str = ""


def failure_of(error: BaseException, words: Sequence[str]) -> Failure | None:
    """How the command line ends after an error.

    Args:
        error: what a command raised.
        words: the arguments of the command line.

    Returns:
        The failure; None if the error is a fault of the program, which is raised as it is.
    """
    if isinstance(error, KeyboardInterrupt) or _left_by_ctrl_c(error):
        return Failure(INTERRUPTED)
    if isinstance(error, SystemExit):
        return None
    if isinstance(error, Terminated):
        return Failure(TERMINATED)
    cause: BaseException | None = error
    while isinstance(cause, ValueError) and not isinstance(cause, RazorError):
        cause = cause.__cause__  # jsonargparse wraps what classes raise, once for each class around
    if isinstance(cause, RazorError):
        return Failure(FAILED, _own_line(cause))
    if words and words[0] in PARSED_BY_LIGHTNING:
        return _failure_of_training(error, words)
    if isinstance(error, argparse.ArgumentError):
        return Failure(MISUSED, _one_line(error.message))
    if isinstance(error, OSError):
        return Failure(FAILED, f"{error.strerror}: {error.filename}; give another place")
    return None


def _failure_of_training(error: BaseException, words: Sequence[str]) -> Failure | None:
    if isinstance(error, argparse.ArgumentError):
        return _misuse(error, words)

    # a command that trains has imported all of these
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OmegaConfBaseException):
        return _misuse(error, words)
    never_judged = isinstance(error, ValueError) and "`val_check_interval`" in str(error)
    if isinstance(error, MisconfigurationException) or never_judged:
        return Failure(FAILED, _one_line(str(error)))
    if isinstance(error, SIGTERMException):
        return Failure(TERMINATED)
    line = install_missing(str(error)) or explain_mismatch(error, words)
    if isinstance(error, OSError | RuntimeError):
        line = line or _accident(error)
    return Failure(FAILED, _one_line(line)) if line else None


def _misuse(error: Exception, words: Sequence[str]) -> Failure:
    message = explain(str(error))
    # a missing key may belong into any of the files
    files = _config_files(words) if "required" in message else ""
    return Failure(MISUSED, _one_line(files + message))


def _accident(error: OSError | RuntimeError) -> str | None:
    """An accident of the machine in one line, with the way out; None for any other error."""
    from razorlight.memory.shortage import is_shortage, way_out

    gist = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.strerror}: {error.filename or 'a file of the run'}; {_DISK[error.errno]}"
    if is_shortage(error):
        return f"out of memory: {way_out(error)} ({gist})"
    if "DataLoader worker" in gist:
        return f"a process that loads data died; take fewer of them, data.num_workers ({gist})"
    if gist.startswith("Early stopping conditioned on metric"):
        return gist
    return None


def _left_by_ctrl_c(error: BaseException) -> bool:
    """Whether Lightning left an interrupted run, as it does by SystemExit."""
    return isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)


def _own_line(error: RazorError) -> str:
    # an error from a loader's worker holds that worker's traceback, which ends with the message
    return _one_line(str(error).rpartition(f"{RazorError.__module__}.RazorError: ")[2])


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _config_files(words: Sequence[str]) -> str:
    names = re.findall(r"(?:^|\s)(?:-c|--config)[\s=](\S+)", " ".join(words))
    return f"{', '.join(names)}: " if names else ""
