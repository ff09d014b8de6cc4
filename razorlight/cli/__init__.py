"""The command line: one parser for all commands; those that train are left to Lightning's.

Nothing here imports torch: help, lists and copies come at once.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from razorlight import __version__
from razorlight.cli import completion, listing
from razorlight.config_files import copy_config
from razorlight.errors import RazorError, Terminated

FAILED, MISUSED = 1, 2
"""Exit statuses: a mistake that a run met, one that the parser met."""

INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses: after Ctrl-C, after SIGTERM."""

TRAINING = {
    "fit": "train a network, validating after each epoch",
    "validate": "score it on the validation split",
    "test": "score it on the test split",
    "predict": "write its predictions",
}
"""The commands of Lightning's command line."""

CONFIG_HELP = "a YAML file, or the name of a shipped one; a later file overrides earlier ones"

KEYS_HELP = (
    "Every key of a configuration is an option too, such as --trainer.max_epochs 10. "
    "All keys: razorlight {0} --help (at length; -h is short). Those of a class: "
    "razorlight {0} --model.help SegmentationTask, --data.help ADE20K, "
    "--trainer.callbacks.help BackRazor."
)

EXAMPLES = """\
examples:
  razorlight fit --config quickstart.yaml
  razorlight fit --config seg_ade.yaml --trainer.max_epochs 10 --data.batch_size 4
  razorlight list models 'mobilenet*'
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the arguments; those of the process if None.

    Returns:
        The exit status: 0, 1 for a mistake met in the run (missing data, unknown model), 2 for one
        in arguments or configuration, 130 after Ctrl-C, 143 after SIGTERM. Mistakes print one line
        on stderr; whatever else goes wrong is raised.
    """
    words = sys.argv[1:] if args is None else args
    try:
        if words and words[0] in TRAINING and words[1:] != ["-h"]:
            from razorlight.cli import training

            training.run(args)
        else:
            _run_here(words)
    except argparse.ArgumentError as error:
        return _complain(error.message, MISUSED)
    except RazorError as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated:
        return TERMINATED
    return 0


def _run_here(words: Sequence[str]) -> None:
    options = _parser().parse_args(words)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read the output has left, as `head` does; Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def _parser() -> _Parser:
    parser = _Parser(
        prog="razorlight",
        description="Train pretrained networks in a fraction of the activation memory.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    completion.add_option(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, help in TRAINING.items():
        # known here for the help and for completion: `main` hands them on unparsed
        training = commands.add_parser(name, help=help, epilog=KEYS_HELP.format(name))
        completion.of_configs(training.add_argument("-c", "--config", help=CONFIG_HELP))
        training.add_argument("--ckpt_path", help="a checkpoint, or `last`, or `best`")
    _add(commands, "list", _list, "show what there is to choose from", _list_arguments)
    _add(commands, "cp", _copy, "copy a shipped configuration, to edit it", _copy_arguments)
    _add(commands, "export", _export, "take the network out of a checkpoint", _export_arguments)
    return parser


def _add(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    help: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
) -> None:
    parser = commands.add_parser(name, help=help, description=f"{help.capitalize()}.")
    parser.set_defaults(run=run)
    add_arguments(parser)


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=list(listing.KINDS), help="what to list")
    parser.add_argument(
        "pattern", nargs="?", default="*", help="a glob of names in quotes, such as 'mobilenet*'"
    )


def _list(options: argparse.Namespace) -> None:
    listing.show(options.kind, options.pattern)


def _copy_arguments(parser: argparse.ArgumentParser) -> None:
    config = parser.add_argument("config", help="the name of a shipped one, or a path")
    completion.of_configs(config)
    parser.add_argument(
        "target", nargs="?", default=".", type=Path, help="a file or a folder (default: here)"
    )


def _copy(options: argparse.Namespace) -> None:
    copy = copy_config(options.config, options.target)
    print(f"{copy} is yours to edit: razorlight fit --config {copy}")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", required=True, type=Path, help="a checkpoint of `fit`")
    parser.add_argument(
        "--out", default="net.safetensors", type=Path, help="the new file (default: %(default)s)"
    )


def _export(options: argparse.Namespace) -> None:
    from razorlight.cli.export import export_network

    print(export_network(options.ckpt, options.out))
