"""``razorlight {fit,validate,test,predict}``: Lightning's command line."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from razorlight.callbacks import LastCheckpoint, RandomState, RunSummary
from razorlight.cli.agreement import check_agreement
from razorlight.cli.batch_size import find_batch_size
from razorlight.cli.callback_keys import add_keys, callbacks_of_run
from razorlight.cli.checkpoint_io import write_whole_checkpoints
from razorlight.cli.configs import ConfigFile, WholeConfig
from razorlight.cli.exported import Learned, put_into_argv, unpack
from razorlight.cli.extras import install_missing
from razorlight.cli.help import CONFIG_HELP, keys_help, usage
from razorlight.cli.loggers import log_into, write_whole_metrics
from razorlight.cli.progress import name_epochs_without_end
from razorlight.cli.resuming import find_checkpoint
from razorlight.cli.warning_lines import plain_warnings, silence_others
from razorlight.data import RazorDataModule
from razorlight.errors import RazorError, Terminated


class RazorCLI(LightningCLI):
    """Lightning's command line over any task and data module, linked by the number of classes.

    Every run has a :class:`RunSummary` in place of Lightning's. So that it can go on later, it also
    has a :class:`RandomState` and, unless checkpoints are off, a :class:`LastCheckpoint`.

    Args:
        args: the arguments; those of the process if None.
        run: Whether the command runs, or its objects are made alone.
        learned: what an exported file says beside the network; None without such a file.
    """

    def __init__(
        self, args: ArgsType = None, run: bool = True, learned: Learned | None = None
    ) -> None:
        self._learned = learned
        self._command = (sys.argv[1:] if args is None else [*args])[:1]
        if "" not in sys.path:
            sys.path.append("")  # classes of one's own, in the working directory
        # omegaconf: ${oc.env:...} in configurations; errors are raised, and become a line later
        common = {"parser_mode": "omegaconf", "exit_on_error": False}
        parsers = {
            name: {**common, "usage": usage(name), "description": keys_help(name)}
            for name in self.subcommands()
        }
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults={"enable_model_summary": False},
            save_config_callback=WholeConfig,
            seed_everything_default=0,
            # by default Lightning makes an optimizer before callbacks and configure_model run
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "razorlight", **common, **parsers},
            args=args,
            run=run,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that runs: parsers of others would take half a second each time."""
        known = super().subcommands()
        return {name: known[name] for name in known if name in self._command} or known

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser with razorlight's own ``--config``."""
        parser = LightningArgumentParser(**kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help=CONFIG_HELP)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys of callbacks; the data say how many classes and channels the model has."""
        add_keys(parser)
        links = {"num_classes": "num_classes", "num_targets": "num_targets"}
        for known, wanted in (links | {"num_bands": "in_channels"}).items():
            parser.link_arguments(
                f"data.{known}", f"model.init_args.{wanted}", apply_on="instantiate"
            )

    def before_instantiate_classes(self) -> None:
        """Look at the data as soon as they are known, before a network is made or downloaded."""
        self.parser.add_instantiator(self._make_data, RazorDataModule, prepend=True)

    @property
    def stage(self) -> str | None:
        """The command whose data are read; None if none are."""
        return self.subcommand

    def _make_data(self, kind: type[RazorDataModule], *args: Any, **kwargs: Any) -> RazorDataModule:
        data = kind(*args, **kwargs)
        if self._learned:
            self._learned.teach_data(data)
        if stage := self.stage:
            rank_zero_only(data.find)(stage)  # of several processes one downloads
        check_agreement(self.config.get(str(self.subcommand), self.config)["model"], data)
        return data

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the callbacks that the configuration asks for or every run has."""
        settings = self.config_init.get(str(self.subcommand), self.config_init)
        callbacks = callbacks_of_run(settings, self.model)
        saving = settings["trainer"]["enable_checkpointing"] is not False
        for kind in (RandomState, RunSummary, *([LastCheckpoint] if saving else [])):
            if not any(isinstance(each, kind) for each in callbacks):
                callbacks.append(kind())
        trainer = _made(super().instantiate_trainer, callbacks=callbacks, **kwargs)
        _warn_of_processes(trainer)
        write_whole_checkpoints(trainer)
        write_whole_metrics(trainer)
        name_epochs_without_end(trainer)
        return trainer

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would replace the user's options by those of the checkpoint."""

    def fit(self, **kwargs: Any) -> None:
        """Train; after Ctrl-C or SIGTERM, say how to go on.

        Raises:
            Terminated: after SIGTERM.
        """
        self._find_batch_size()
        try:
            self.trainer.fit(**kwargs)
        # Lightning leaves an interrupted run by SystemExit; a worker of a loader may fail at once
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

    def _find_batch_size(self) -> None:
        data = self.datamodule
        trial = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        if isinstance(data, RazorDataModule) and data.is_batch_size_auto and not trial:
            settings = self.config_init[str(self.subcommand)]["trainer"].as_dict()
            find_batch_size(settings, self.trainer, self.model, data)

    def after_instantiate_classes(self) -> None:
        """Find the file that ``--ckpt_path last`` or ``best`` speaks of; ``fit`` goes on there.

        A task of an exported network learns what the file says beside it.

        Raises:
            RazorError: if there is none; ``fit`` from the last begins a new run then.
        """
        if self._learned:
            self._learned.teach_task(self.model)
        command = str(self.subcommand)
        settings = self.config_init.get(command, {})
        which = settings.get("ckpt_path")
        if which not in ("last", "best"):
            return
        files = [path.absolute for path in self.config[command].get("config") or ()]
        # plain values, as in the copy of a configuration in a run's folder
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))[command]
        begins = command == "fit" and which == "last"
        resumed = find_checkpoint(which, files, config, self.trainer, may_begin=begins)
        settings["ckpt_path"] = resumed and str(resumed.checkpoint)
        if resumed and command == "fit":
            log_into(resumed.run, self.trainer)


def _made(make: Callable[..., Trainer], **kwargs: Any) -> Trainer:
    """The trainer; what Lightning refuses in its arguments is a mistake in the configuration."""
    try:
        return make(**kwargs)
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        if twice := re.search("more than one stateful callback of type `(.*?)`", str(error)):
            raise RazorError(
                f"trainer.callbacks: {twice[1]} is given twice; leave one of them out"
            ) from error
        raise RazorError(f"trainer: {install_missing(str(error)) or error}") from error


def _warn_of_processes(trainer: Trainer) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > (cores or 1):
        rank_zero_warn(
            f"trainer.devices: {trainer.num_devices} processes share {cores} cores, and are slower "
            "than one process; leave --trainer.devices out"
        )


def run(args: Sequence[str] | None = None) -> None:
    """Run a command of Lightning's command line.

    Args:
        args: the arguments; those of the process if None.

    Raises:
        Terminated: after SIGTERM.
        Exception: of any kind, which :mod:`razorlight.cli.failures` tells apart.
    """
    words, learned = unpack(sys.argv[1:] if args is None else args)
    silence_others(words[0])
    if args is None and learned:
        put_into_argv(words)
    with plain_warnings():
        RazorCLI(None if args is None else words, learned=learned)
