"""Completion of commands and configurations in the user's shell, by shtab."""

import argparse
from typing import Any

from razorlight.config_files import shipped_configs
from razorlight.errors import RazorError

SHELLS = ("bash", "zsh")

_CONFIGS = "_razorlight_configs"
_PREAMBLES = {
    "bash": '{name}() {{ compgen -W "{configs}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": "{name}() {{ _alternative 'shipped:shipped:({configs})' 'files:file:_files' }}",
}


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--print_completion SHELL``, which prints a script for the shell to source."""
    parser.add_argument(
        "--print_completion",
        action=_Print,
        choices=SHELLS,
        metavar="SHELL",
        help='print a script for completion: eval "$(razorlight --print_completion bash)"',
    )


def of_configs(argument: argparse.Action) -> None:
    """Let ``argument`` be completed by names of shipped configurations and by files."""
    vars(argument)["complete"] = dict.fromkeys(SHELLS, _CONFIGS)


class _Print(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None
    ) -> None:
        try:
            import shtab
        except ModuleNotFoundError as error:
            raise RazorError(
                'completion needs the package shtab; pip install "razorlight[completion]"'
            ) from error
        preamble = _PREAMBLES[values].format(name=_CONFIGS, configs=" ".join(shipped_configs()))
        print(shtab.complete(parser, shell=values, preamble=preamble))
        parser.exit()
