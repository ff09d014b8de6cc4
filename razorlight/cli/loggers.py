"""Loggers that go on in the folder of an earlier run, and whose CSV files are always whole.

All private names of Lightning's loggers that razorlight uses are in this file.
"""

import csv
import warnings
from pathlib import Path

from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from typing_extensions import override

from razorlight.files import drop_torn_line, replaced


def write_whole_metrics(trainer: Trainer) -> None:
    """Let a trainer's CSV loggers write whole files, and go on with files that are there."""
    for logger in trainer.loggers:
        if type(logger) is CSVLogger:
            logger.__class__ = WholeCSVLogger


def log_into(run: Path, trainer: Trainer) -> None:
    """Let a trainer write into the folder of an earlier run, beside the files of that run.

    The best checkpoint so far stays known, and metrics and memory go on in the same files. Only
    the copy of the configuration is written anew.

    Args:
        run: the folder.
        trainer: its logger writes CSV or TensorBoard files, or it has none.
    """
    run, logger = run.absolute(), trainer.logger
    if isinstance(logger, CSVLogger | TensorBoardLogger):
        for place in ("_root_dir", "_save_dir"):  # CSV loggers have both, with one meaning
            vars(logger)[place] = str(run.parents[1])
        logger._name, logger._version = run.parent.name, run.name
    elif logger is None:
        vars(trainer)["_default_root_dir"] = str(run)
    warnings.filterwarnings("ignore", message=".*exists and is not empty")


class WholeCSVLogger(CSVLogger):
    """Lightning's CSV logger, but it goes on with a metrics.csv that is there, and keeps it whole.

    A resumed run repeats some steps; their rows stand in the file twice.
    """

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:
        """The writer. It is made, with its folder, on first use."""
        if self._experiment is None:
            self._experiment = _MetricsFile(self.log_dir)
        return self._experiment


class _MetricsFile(ExperimentWriter):
    @override
    def _check_log_dir_exists(self) -> None:
        """Go on with the columns of a file that is there."""
        path = Path(self.metrics_file_path)
        if path.is_file():
            drop_torn_line(path)
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    @override
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with replaced(path) as new, new.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(rows)
