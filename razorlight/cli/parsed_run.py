"""A command that reads the options of ``fit``, and has some of its own."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from razorlight.cli.help import keys_help, usage
from razorlight.cli.training import RazorCLI
from razorlight.data import RazorDataModule
from razorlight.errors import RazorError

Options = dict[str, dict[str, Any]]
"""Further options of a command, by name, each with its help."""


class ParsedRun(RazorCLI):
    """Lightning's command line, for a command that trains nothing.

    Args:
        command: the command.
        args: its arguments, without its name.
        options: further options of the command.
    """

    def __init__(self, command: str, args: Sequence[str], options: Options) -> None:
        self.command, self.options = command, options
        super().__init__([*args], run=False)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser with the options of ``fit``, and those of the command."""
        help = {"usage": usage(self.command), "description": keys_help(self.command)}
        parser = super().init_parser(**kwargs | help)
        for name, option in self.options.items():
            parser.add_argument(name, **option)
        # configurations that `fit` has written hold these
        parser.add_argument("--ckpt_path", type=Any, default=None, help="is not read")
        parser.add_argument("--weights_only", type=Any, default=None, help="is not read")
        return parser

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """None is made, because a configuration may ask for devices that this machine lacks."""
        nothing: Any = None
        return nothing


class DataOfRun(ParsedRun):
    """The data module of a run. Neither a network nor a callback is made.

    Attributes:
        data: the data module.

    Raises:
        RazorError: if the data module is none of razorlight.
    """

    def __init__(self, command: str, args: Sequence[str], options: Options) -> None:
        super().__init__(command, args, options)
        data = self.config_init["data"]
        if not isinstance(data, RazorDataModule):
            raise RazorError(
                f"{command}: {type(data).__name__} is no data module of razorlight; derive it from "
                "razorlight.data.RazorDataModule"
            )
        self.data = data

    def instantiate_classes(self) -> None:
        """Make the data module alone."""
        self.config_init = self.parser.instantiate_classes(Namespace(data=self.config["data"]))
