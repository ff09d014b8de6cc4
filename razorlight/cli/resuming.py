"""``--ckpt_path last``: where the last run of a configuration stopped."""

import warnings
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


def last_checkpoint(trainer: Trainer) -> Path | None:
    """The newest ``last.ckpt`` among the runs that share the trainer's folder of runs.

    Lightning itself looks into the folder of the new run alone, which has none yet.

    Returns:
        Its path; None if there is none, or the trainer's logger keeps its runs in its own way.
    """
    logger = trainer.logger
    if isinstance(logger, CSVLogger | TensorBoardLogger):
        found = Path(logger.root_dir).glob("*/checkpoints/last.ckpt")
    elif logger is None:
        found = Path(trainer.default_root_dir).glob("checkpoints/last.ckpt")
    else:
        return None
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def continue_run(checkpoint: Path, trainer: Trainer) -> None:
    """Let the trainer write to the folder of the run that left a checkpoint, beside what is there.

    So its best checkpoint so far stays known, and metrics and memory go on in the same files.
    """
    run, logger = checkpoint.parents[1], trainer.logger
    if isinstance(logger, CSVLogger | TensorBoardLogger):
        logger._version = run.name  # not in the configuration: its copy in the folder begins anew
    warnings.filterwarnings("ignore", message=".*exists and is not empty")
