"""The command line: ``razorlight {fit,validate,test,predict} --config <name or path>``."""

import logging
import re
import sys
import warnings
from difflib import get_close_matches
from inspect import signature
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from omegaconf.errors import OmegaConfBaseException

from razorlight import __version__, callbacks, data, tasks
from razorlight.config_files import find_config
from razorlight.errors import RazorError

NAMESPACES = (callbacks, data, tasks)
"""What configurations may call by short names: ``class_path: BackRazor``."""

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: a mistake that a run met, one that the parser met, Ctrl-C."""


class ConfigFile(ActionConfigFile):
    """``--config``, that also finds shipped files by name."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        """Read the file into ``cfg``."""
        super().__call__(parser, cfg, find_config(values), option_string)


class RazorCLI(LightningCLI):
    """Lightning's command line over any task and data module, linked by the number of classes."""

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        # omegaconf: ${oc.env:...} in configurations; errors are raised for `main` to print
        common = {"parser_mode": "omegaconf", "exit_on_error": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            # else it would make an optimizer before callbacks and configure_model see the model
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "razorlight",
                "description": "Train pretrained networks in a fraction of the activation memory",
                "version": __version__,
                **common,
                **{subcommand: dict(common) for subcommand in self.subcommands()},
            },
            args=args,
            run=run,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser with razorlight's own ``--config``."""
        parser = LightningArgumentParser(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=ConfigFile,
            help="A YAML file, or the name of a shipped one; a later file overrides earlier ones.",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give the number of classes of the data to the model."""
        parser.link_arguments(
            "data.num_classes", "model.init_args.num_classes", apply_on="instantiate"
        )


def main(args: ArgsType = None) -> int:
    """Run the command line.

    Args:
        args: the arguments; those of the process if None.

    Returns:
        The exit status: 0, 1 for a mistake met in the run (missing data, unknown model), 2 for one
        in arguments or configuration, 130 after Ctrl-C. Mistakes print one line on stderr; whatever
        else goes wrong is raised.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_banner)
    # Lightning's own use of torch, not its user's concern
    warnings.filterwarnings("ignore", message=".*LeafSpec")
    try:
        RazorCLI(args)
    except (ArgumentError, OmegaConfBaseException) as error:
        gist = _gist(str(error))
        return _complain(gist + _did_you_mean(gist), MISUSED)
    except RazorError as error:
        # one from a loader's worker carries that worker's whole traceback; its own line is the last
        last = str(error).strip().splitlines()[-1]
        return _complain(last.removeprefix(f"{RazorError.__module__}.RazorError: "), FAILED)
    except MisconfigurationException as error:
        return _complain(str(error), FAILED)
    except ValueError as error:
        # jsonargparse wraps what a constructor raises
        if not isinstance(error.__cause__, RazorError):
            raise
        return _complain(str(error.__cause__), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as leaving:
        # how Lightning leaves a run that it was interrupted in
        if isinstance(leaving.__context__, KeyboardInterrupt):
            return INTERRUPTED
        raise
    return 0


def _complain(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _gist(message: str) -> str:
    """What jsonargparse found wrong, out of its account of all that it tried.

    Where a value may be of several types it lists why each refused, as nested bullets; the first of
    each list is the type that was meant.
    """
    kept, depth = [], -1
    for line in message.splitlines():
        text = line.lstrip()
        if text.startswith("- "):
            indent = len(line) - len(text)
            if indent <= depth:
                break
            depth = indent
        if not text.startswith(("Does not validate", "Subtypes:", "Errors:", "Given value")):
            kept.append(text.removeprefix("- "))
    return " ".join(kept)


def _did_you_mean(gist: str) -> str:
    """The known name that is nearest to the unknown one in ``gist``, if it has one."""
    unknown = re.search(r"(?:[Oo]ption '|path string: )([\w.]+)", gist)
    if unknown is None:
        return ""
    classes = [Trainer, *(getattr(m, n) for m in NAMESPACES for n in m.__all__)]
    names = {"trainer", "model", "data", "class_path", "init_args"}
    names.update(*([kind.__name__, *signature(kind).parameters] for kind in classes))
    wrong = next((part for part in unknown[1].split(".") if part not in names), "")
    near = get_close_matches(wrong, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _is_no_banner(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
