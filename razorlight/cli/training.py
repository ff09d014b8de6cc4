"""``razorlight {fit,validate,test,predict}``: Lightning's command line."""

import logging
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf.errors import OmegaConfBaseException

from razorlight.callbacks import LastCheckpoint, RandomState, RunSummary
from razorlight.cli import CONFIG_HELP, KEYS_HELP
from razorlight.cli.accidents import explain_accident
from razorlight.cli.messages import explain
from razorlight.cli.resuming import best_of, continue_run, last_of, newest_run, run_of_configs
from razorlight.cli.saving import WholeConfig, make_durable
from razorlight.config_files import find_config
from razorlight.data import RazorDataModule
from razorlight.errors import RazorError, Terminated


class ConfigFile(ActionConfigFile):
    """``--config``, that also finds shipped files by name, and names the one that is wrong."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        """Read the file into ``cfg``."""
        path = find_config(values)
        try:
            super().__call__(parser, cfg, path, option_string)
            # a later file may give what is required still; unknown keys no other will mend
            parser.validate(cfg, skip_required=True)
        except (ArgumentError, OmegaConfBaseException, TypeError, KeyError) as error:
            raise ArgumentError(None, f"{path}: {error}") from error


class RazorCLI(LightningCLI):
    """Lightning's command line over any task and data module, linked by the number of classes.

    Every run has a :class:`RunSummary` in place of Lightning's, and what it takes to go on with it:
    a :class:`RandomState` and, unless checkpoints are off, a :class:`LastCheckpoint`.
    """

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        # omegaconf: ${oc.env:...} in configurations; errors are raised for `main` to print
        common = {"parser_mode": "omegaconf", "exit_on_error": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults={"enable_model_summary": False},
            save_config_callback=WholeConfig,
            seed_everything_default=0,
            # else it would make an optimizer before callbacks and configure_model see the model
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "razorlight",
                **common,
                **{name: {**common, **_usage(name)} for name in self.subcommands()},
            },
            args=args,
            run=run,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser with razorlight's own ``--config``."""
        parser = LightningArgumentParser(**kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help=CONFIG_HELP)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give the number of classes of the data to the model."""
        parser.link_arguments(
            "data.num_classes", "model.init_args.num_classes", apply_on="instantiate"
        )

    def before_instantiate_classes(self) -> None:
        """Look for the data as soon as they are known, before a network is made or downloaded."""
        if self.subcommand:
            self.parser.add_instantiator(self._make_data, RazorDataModule, prepend=True)

    def _make_data(self, kind: type[RazorDataModule], *args: Any, **kwargs: Any) -> RazorDataModule:
        data = kind(*args, **kwargs)
        rank_zero_only(data.find)(str(self.subcommand))  # of several processes one downloads
        return data

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the callbacks that every run has."""
        callbacks: list[Callback] = [RandomState(), RunSummary()]
        if self._get(self.config_init, "trainer")["enable_checkpointing"] is not False:
            callbacks.append(LastCheckpoint())
        self.trainer_defaults["callbacks"] = callbacks
        trainer = super().instantiate_trainer(**kwargs)
        make_durable(trainer)
        return trainer

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration to its user: Lightning's takes a checkpoint's word instead."""

    def fit(self, **kwargs: Any) -> None:
        """Train; after Ctrl-C or SIGTERM, say how to go on.

        Raises:
            Terminated: after SIGTERM.
        """
        try:
            self.trainer.fit(**kwargs)
        # how Lightning leaves a run that was interrupted; the loaders may have been told too
        except (SystemExit, RuntimeError) as leaving:
            terminated = self.trainer.received_sigterm
            interrupted = terminated or isinstance(leaving.__context__, KeyboardInterrupt)
            if interrupted and self.trainer.is_global_zero:
                callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
                summary = next(c for c in callbacks if isinstance(c, RunSummary))
                resume = summary.resume_command(self.trainer)
                hint = f"to go on: {resume}" if resume else "no checkpoint was saved"
                print(f"interrupted; {hint}", file=sys.stderr)
            if terminated:
                raise Terminated from leaving
            raise

    def after_instantiate_classes(self) -> None:
        """Find the file that ``--ckpt_path last`` or ``best`` speaks of; ``fit`` goes on there.

        Raises:
            RazorError: if there is none; for ``fit`` from the last, which then begins, a line.
        """
        settings = self.config_init.get(str(self.subcommand), {})
        which = settings.get("ckpt_path")
        if which not in ("last", "best"):
            return
        config = self.config[str(self.subcommand)]
        named = run_of_configs([path.absolute for path in config.get("config") or ()])
        run = named or newest_run(self.trainer, self._plain(config))
        checkpoint = run and (best_of(run) if which == "best" else last_of(run))
        if run is None or checkpoint is None:
            found = f"{named} has no last.ckpt" if named else "no run of this configuration has one"
            if self.subcommand != "fit" or which == "best":
                raise RazorError(f"ckpt_path: {which}: {found}; give the path of a file")
            rank_zero_info(f"ckpt_path: {found}; a new run begins")
        settings["ckpt_path"] = checkpoint and str(checkpoint)
        if run and checkpoint:
            why = "whose config.yaml is given" if named else "the newest of this configuration"
            rank_zero_info(f"ckpt_path: {checkpoint.name} of {run}, {why}")
            if self.subcommand == "fit":
                continue_run(run, self.trainer)

    def _plain(self, config: Any) -> dict[str, Any]:
        """A configuration as its copy in a run's folder says it."""
        return yaml.safe_load(self._parser(self.subcommand).dump(config, skip_none=False))


def _usage(command: str) -> dict[str, str]:
    # its own would name each of some hundred options
    usage = f"razorlight {command} --config NAME.yaml [--KEY VALUE ...]"
    return {"usage": usage, "description": KEYS_HELP.format(command)}


def run(args: Sequence[str] | None = None) -> None:
    """Run a command of Lightning's.

    Args:
        args: the arguments; those of the process if None.

    Raises:
        ArgumentError: for a mistake in arguments or configuration.
        RazorError: for one met in the run.
        KeyboardInterrupt: after Ctrl-C.
        Terminated: after SIGTERM.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_banner)
    # Lightning's own use of torch, and frozen norms, which tasks leave so on purpose
    warnings.filterwarnings("ignore", message=".*LeafSpec|.*in eval mode at the start of training")
    words = sys.argv[1:] if args is None else args
    if words[0] != "fit":  # then no checkpoint is written, in whatever folder
        warnings.filterwarnings("ignore", message="The dirpath has changed")
    try:
        with _plain_warnings():
            RazorCLI(None if args is None else list(args))
    except (ArgumentError, OmegaConfBaseException) as error:
        message = explain(str(error))
        # which file lacks it, nobody can say
        files = _configs(words) if "required" in message else ""
        raise ArgumentError(None, files + message) from error
    except MisconfigurationException as error:
        raise RazorError(str(error)) from error
    except RazorError as error:
        # one from a loader's worker carries that worker's whole traceback; its own line is the last
        last = str(error).strip().splitlines()[-1]
        prefix = f"{RazorError.__module__}.RazorError: "
        raise RazorError(last.removeprefix(prefix)) from error
    except ValueError as error:
        # jsonargparse wraps what a constructor raises
        if not isinstance(error.__cause__, RazorError):
            raise
        raise error.__cause__ from None
    except (OSError, RuntimeError) as error:
        if (line := explain_accident(error)) is None:
            raise
        raise RazorError(line) from error
    except SIGTERMException as leaving:
        raise Terminated from leaving
    except SystemExit as leaving:
        # how Lightning leaves a run that it was interrupted in
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _configs(words: Sequence[str]) -> str:
    names = re.findall(r"(?:^|\s)(?:-c|--config)[\s=](\S+)", " ".join(words))
    return f"{', '.join(names)}: " if names else ""


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print razorlight's own warnings as a line, without the place in the code that makes them."""
    usual, own = warnings.formatwarning, Path(__file__).parents[1]

    def formatted(
        message: Any, category: Any, filename: str, lineno: int, line: str | None = None
    ) -> str:
        if Path(filename).is_relative_to(own):
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _is_no_banner(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
