"""``--ckpt_path last``: where the last run of a configuration stopped."""

import warnings
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


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

    So its best checkpoint so far stays known, and its memory goes on in the same file.
    """
    run, logger = checkpoint.parents[1], trainer.logger
    if isinstance(logger, CSVLogger | TensorBoardLogger):
        logger._version = run.name  # not in the configuration: its copy in the folder begins anew
        _keep_metrics(run)
    warnings.filterwarnings("ignore", message=".*exists and is not empty")


@rank_zero_only
def _keep_metrics(run: Path) -> None:
    metrics = run / "metrics.csv"  # CSVLogger would delete it
    if metrics.exists():
        metrics.rename(run / f"metrics_{len(list(run.glob('metrics_*.csv')))}.csv")
