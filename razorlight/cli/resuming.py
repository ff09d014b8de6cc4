"""``--ckpt_path last`` and ``best``: which run they belong to, and which of its files they are."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from razorlight.checkpoints import read_checkpoint
from razorlight.errors import RazorError
from razorlight.files import relative

CONFIG = "config.yaml"
"""The name of the copy of the configuration in a run's folder."""

_FREE = ("weights", "optimizer", "schedule", "layer_decay", "lr_multipliers")
"""The arguments of a model that may differ between runs of one configuration."""


_OF_DATA = (
    *("root", "classes", "bands", "val_fraction", "split_seed", "val_fold"),
    *("table", "image_column", "label", "labels", "separator", "targets"),
)
"""The arguments of data that may not: another division would score what was trained on."""


class Resumed(NamedTuple):
    """What ``--ckpt_path`` stands for.

    Attributes:
        run: the folder of an earlier run.
        checkpoint: one of its files.
    """

    run: Path
    checkpoint: Path


def find_checkpoint(
    which: Literal["last", "best"],
    files: Sequence[str],
    config: Mapping[str, Any],
    trainer: Trainer,
    may_begin: bool,
) -> Resumed | None:
    """The checkpoint that ``--ckpt_path last`` or ``best`` speaks of; says in a line which it is.

    Args:
        which: the value of the option.
        files: the paths that ``--config`` was given.
        config: the configuration, as plain values.
        trainer: its logger says where runs are.
        may_begin: Whether a new run begins if no run has a last checkpoint.

    Raises:
        RazorError: if there is no such checkpoint and no new run may begin.
    """
    named = run_of_configs(files)
    run = named or newest_run(trainer, config)
    checkpoint = run and (best_of(run) if which == "best" else last_of(run))
    if run and checkpoint:
        why = "whose config.yaml is given" if named else "the newest of this configuration"
        rank_zero_info(f"ckpt_path: {checkpoint.name} of {run}, {why}")
        return Resumed(run, checkpoint)
    found = f"{named} has no last.ckpt" if named else "no run of this configuration has one"
    if not may_begin:
        raise RazorError(f"ckpt_path: {which}: {found}; give the path of a file")
    rank_zero_info(f"ckpt_path: {found}; a new run begins")
    return None


def run_of_configs(configs: Sequence[str]) -> Path | None:
    """The folder of the run that one of these configurations was saved by; None if there is none.

    Args:
        configs: paths that ``--config`` was given. The last in the folder of a run counts.
    """
    folders = [Path(config).absolute().parent for config in configs if Path(config).name == CONFIG]
    runs = [
        folder
        for folder in folders
        if (folder / "checkpoints").is_dir() or re.fullmatch(r"version_\d+", folder.name)
    ]
    return relative(runs[-1]) if runs else None


def newest_run(trainer: Trainer, config: Mapping[str, Any]) -> Path | None:
    """The newest run of a configuration that has a ``last.ckpt``, by the folder of the trainer.

    Lightning itself looks only into the folder of the new run, which has no checkpoint yet.

    Args:
        trainer: its logger says where runs are.
        config: configuration of this run, as plain values. Another run has the same configuration
            if network and data are the same. The trainer, batches and rates may differ.

    Returns:
        The folder of the run; None if there is none, or the logger writes no folders of runs.
    """
    logger = trainer.logger
    if isinstance(logger, CSVLogger | TensorBoardLogger):
        runs = list(Path(logger.root_dir).glob("*/"))
    elif logger is None:
        runs = [Path(trainer.default_root_dir)]
    else:
        return None
    same = [run for run in runs if last_of(run) and _gist(_read(run / CONFIG)) == _gist(config)]
    return max(same, key=lambda run: (run / "checkpoints/last.ckpt").stat().st_mtime, default=None)


def last_of(run: Path) -> Path | None:
    """The last checkpoint of a run; None if there is none."""
    last = run / "checkpoints" / "last.ckpt"
    return last if last.exists() else None


def best_of(run: Path) -> Path:
    """The checkpoint of a run that scored best.

    Raises:
        RazorError: if the run kept none.
    """
    folder = run / "checkpoints"
    last = last_of(run)
    states = read_checkpoint(last, "ckpt_path").get("callbacks", {}) if last else {}
    named = [
        Path(state["best_model_path"])
        for key, state in states.items()
        if key.startswith("ModelCheckpoint") and state.get("best_model_path")
    ]
    # the run's folder may have been moved since
    found = [path for best in named for path in (folder / best.name, best) if path.exists()]
    if not found:
        raise RazorError(
            f"ckpt_path: {run} kept no best checkpoint; give `last`, or the path of a file"
        )
    return found[0]


def _read(config: Path) -> Any:
    return yaml.safe_load(config.read_text()) if config.is_file() else None


def _gist(config: Any) -> Any:
    """The part of a configuration that two runs must share: the network, and its data."""
    if not isinstance(config, Mapping):
        return None
    model, data = config.get("model") or {}, config.get("data") or {}
    settings = model.get("init_args") or {}
    of_data = data.get("init_args") or {}
    return (
        model.get("class_path"),
        {key: value for key, value in settings.items() if key not in _FREE},
        data.get("class_path"),
        {key: of_data.get(key) for key in _OF_DATA},
    )
