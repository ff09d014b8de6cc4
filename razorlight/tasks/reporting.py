"""Scores of each class or number, which ``validate`` and ``test`` end with."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from razorlight._torch import tree_map
from razorlight.logged_pictures import log_picture
from razorlight.protocols import output_names
from razorlight.tasks.base import Batch, FineTuningTask


class Report(ABC):
    """The scores of each class or number."""

    @abstractmethod
    def table(self) -> Table:
        """The scores, in at most 80 columns."""

    @abstractmethod
    def save(self, folder: Path, stage: str) -> Sequence[Path]:
        """Write the scores as files whose names begin with ``stage``, and return their paths."""

    def lines(self) -> Sequence[str]:
        """What else is to be said."""
        return ()


class ReportingTask(FineTuningTask):
    """A task whose ``validate`` and ``test`` end with a table of scores.

    They also write the scores into the run's folder.

    Args:
        net: see :class:`FineTuningTask`.
        metrics: see :class:`FineTuningTask`.
        reported: the metrics of each class or number.
        num_outputs: how many classes or numbers there are.
        **kwargs: see :class:`FineTuningTask`.
    """

    def __init__(
        self,
        net: nn.Module,
        metrics: MetricCollection,
        reported: Metric | MetricCollection,
        num_outputs: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(net, metrics, **kwargs)
        self.reported = reported
        self._num_outputs = num_outputs

    def gather(self, predictions: Tensor, targets: Tensor) -> None:
        """Update what is reported by one batch."""
        self.score(self.reported, predictions, targets)

    def gathered(self) -> Any:
        """What is reported, of all processes; the next evaluation begins anew."""
        found = tree_map(_on_cpu, self.reported.compute())
        self.reported.reset()
        return found

    @abstractmethod
    def report(self, found: Any, names: Sequence[str]) -> Report:
        """The report.

        Args:
            found: what :meth:`gathered` gave.
            names: the names of the classes or numbers.
        """

    def _evaluate(self, batch: Batch, stage: str, metrics: MetricCollection) -> Tensor:
        predictions = super()._evaluate(batch, stage, metrics)
        if not self._fitting:
            self.gather(predictions, batch[1])
        return predictions

    def on_validation_epoch_end(self) -> None:
        """Report, unless this is the validation of a fit."""
        if not self._fitting:
            self._report("val")

    def on_test_epoch_end(self) -> None:
        """Report."""
        self._report("test")

    @property
    def _fitting(self) -> bool:
        return self.trainer.state.fn == TrainerFn.FITTING

    def _report(self, stage: str) -> None:
        found = self.gathered()  # every process takes part
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)  # every rank must ask
        if not self.trainer.is_global_zero:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        names = output_names(data) or range(self._num_outputs)
        report = self.report(found, [str(name) for name in names])
        console = Console()
        console.print(report.table())
        files = report.save(folder, stage)
        for line in (*files, *report.lines()):
            console.print(str(line), soft_wrap=True, highlight=False, markup=False)
        for file in files:
            if file.suffix == ".png":
                log_picture(self.trainer, file)


def _on_cpu(part: Any) -> Any:
    return part.cpu() if isinstance(part, Tensor) else part
