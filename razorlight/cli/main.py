"""``razorlight``: each command runs here, and what goes wrong becomes a line and a status.

Nothing here imports torch: help, lists and copies come at once.
"""

import os
import sys
from collections.abc import Sequence

from razorlight.cli import first_look, long_help
from razorlight.cli.commands import run_command
from razorlight.cli.failures import failure_of
from razorlight.cli.help import DRY_RUNS, PARSED_BY_LIGHTNING, TRAINING


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the arguments; those of the process if None.

    Returns:
        The exit status: 0, 1 for a mistake met in the run (missing data, unknown model), 2 for one
        in arguments or configuration, 130 after Ctrl-C, 143 after SIGTERM. A mistake prints one
        line on stderr.

    Raises:
        BaseException: whatever else goes wrong. It is a fault of the program.
    """
    words = sys.argv[1:] if args is None else list(args)
    try:
        if words and words[0] in PARSED_BY_LIGHTNING:
            if long_help.show(words[0], words[1:]):
                raise SystemExit(0)
            first_look.look(words[1:])
        if words and words[0] in TRAINING and words[1:] != ["-h"]:
            from razorlight.cli import training

            training.run(args)
        elif words and words[0] in DRY_RUNS and words[1:] != ["-h"]:
            from razorlight.cli import check, compare, dry_run, estimate, explain, preview

            modules = (check, compare, estimate, explain, preview)
            commands = {each.__name__.rpartition(".")[2]: each.run for each in modules}
            dry_run.run(commands[words[0]], words)
        else:
            run_command(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of the output has left, as `head` does; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BaseException as error:
        failure = failure_of(error, words)
        if failure is None:
            raise
        if failure.line:
            print(f"error: {failure.line}", file=sys.stderr)
        return failure.status
    return 0
