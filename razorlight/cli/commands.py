"""The parser of ``razorlight``, and the commands that do not train: list, cp and export."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from razorlight import __version__
from razorlight.cli import completion, listing
from razorlight.cli.help import (
    CALLBACK_KEYS,
    CONFIG_HELP,
    EXAMPLES,
    PARSED_BY_LIGHTNING,
    keys_help,
)
from razorlight.config_files import copy_config


def run_command(words: Sequence[str]) -> None:
    """Run a command that does not train.

    Args:
        words: the arguments, the command first.

    Raises:
        ArgumentError: for a mistake in the arguments.
        RazorError: for a mistake that the command meets.
    """
    options = _parser().parse_args(words)
    options.run(options)


class _Parser(argparse.ArgumentParser):
    """Raises an error for a mistake, in place of printing the usage."""

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
    for name, does in PARSED_BY_LIGHTNING.items():
        # known here for help and completion only: Lightning's command line runs them
        training = commands.add_parser(name, help=does, epilog=keys_help(name))
        completion.of_configs(training.add_argument("-c", "--config", help=CONFIG_HELP))
        training.add_argument("--ckpt_path", help="a checkpoint, or `last`, or `best`")
        for key, (_, does, _) in CALLBACK_KEYS.items():
            help = f"{does} (default: true)"
            training.add_argument(f"--{key}", choices=("true", "false"), help=help)
        training.add_argument(
            "--razor.recipe", choices=listing.names("recipes"), help="how layers store"
        )
        training.add_argument(
            "--razor.memory_budget", metavar="8GiB", help="the most that a step may take"
        )
    _add(commands, "list", _list, "show what there is to choose from", _list_arguments)
    _add(commands, "runs", _runs, "compare the runs of a folder", _runs_arguments)
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


def _runs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="runs", type=Path, help="(default: runs)")
    parser.add_argument("--html", type=Path, help="write a page with curves there too")


def _runs(options: argparse.Namespace) -> None:
    from razorlight.cli import runs

    found = runs.read_runs(options.folder)
    runs.show(found)
    if options.html:
        from razorlight.cli.runs_page import write_runs

        write_runs(found, options.html)
        print(options.html)


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
    help = 'write the network as ONNX too, beside it; pip install "razorlight[onnx]"'
    parser.add_argument("--onnx", action="store_true", help=help)


def _export(options: argparse.Namespace) -> None:
    from razorlight.cli.export import export_network

    for line in export_network(options.ckpt, options.out, options.onnx):
        print(line)
