"""What all tasks share: what is trained, how, and how it is scored."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.optim import AdamW
from torchmetrics import MetricCollection

from razorlight.errors import RazorError
from razorlight.patterns import check_patterns, matches_any
from razorlight.tasks.schedule import Schedule

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)

Batch = tuple[Tensor, Tensor]


class FineTuningTask(LightningModule, ABC):
    """A network, a loss over its class logits, and metrics over the classes it predicts.

    Batches are ``(images, targets)``: float32 (B, 3, H, W), already normalised, and int64 class
    ids, (B,) or (B, H, W).

    Hyperparameters are not saved in checkpoints, because Lightning's command line would silently
    prefer them to what its user asks for; the run's ``config.yaml`` has them.

    Args:
        net: maps images to logits, (B, classes) or (B, classes, H, W).
        metrics: of predicted and true class ids; logged as ``val/<name>`` and ``test/<name>``.
        optimizer: makes the optimizer from the trainable parameters; AdamW with a learning rate of
            1e-4 if None.
        schedule: the learning rate over the run, constant if None.
        freeze: globs over parameter names (``net.encoder``, ``net.blocks.[0-5]``) not to train.
        freeze_norm: leave all normalisation layers as they are, scale and shift as well as
            BatchNorm's running statistics.

    Raises:
        RazorError: if a pattern of ``freeze`` matches nothing, or nothing is left to train.
    """

    def __init__(
        self,
        net: nn.Module,
        metrics: MetricCollection,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule | None = None,
        freeze: Sequence[str] | None = None,
        freeze_norm: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self._make_optimizer = optimizer or partial(AdamW, lr=1e-4)
        self.schedule = schedule
        self._freeze(freeze or (), freeze_norm)
        # Lightning keeps the mode it finds: set BatchNorm's here
        self.train()

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The scalar to minimise.

        Args:
            logits: float (B, classes, ...).
            targets: int64 (B, ...), class ids.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ``images``."""
        return self.net(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, logged as ``train/loss``."""
        images, targets = batch
        loss = self.loss(self(images), targets)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and metrics as ``val/...``; returns what :meth:`predict_step` would."""
        return self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and metrics as ``test/...``; returns what :meth:`predict_step` would."""
        return self._evaluate(batch, "test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The likeliest class ids, int64, (B,) or (B, H, W)."""
        images, _ = batch
        return self(images).argmax(dim=1)

    def _evaluate(self, batch: Batch, stage: str, metrics: MetricCollection) -> Tensor:
        images, targets = batch
        logits = self(images)
        predicted = logits.argmax(dim=1)
        metrics.update(predicted, targets)
        self.log(f"{stage}/loss", self.loss(logits, targets), sync_dist=True)
        self.log_dict(metrics, prog_bar=True)
        return predicted

    def configure_optimizers(self) -> Any:
        """The optimizer over trainable parameters and, if there is one, its schedule by step.

        Raises:
            RazorError: if the rate is to fall over a run without an end.
        """
        optimizer = self._make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.schedule is None:
            return optimizer
        scheduler = self.schedule.build(optimizer, self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def train(self, mode: bool = True) -> "FineTuningTask":
        """Set training mode, but leave BatchNorm in evaluation mode where it is frozen."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and self._is_frozen(module):
                module.eval()
        return self

    def _freeze(self, patterns: Sequence[str], norms: bool) -> None:
        parameters = dict(self.named_parameters())
        check_patterns(patterns, list(parameters), "freeze")
        for name, parameter in parameters.items():
            if matches_any(name, patterns):
                parameter.requires_grad_(False)
        self._norms_frozen = norms
        for module in self.modules():
            if norms and isinstance(module, NORMS):
                module.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise RazorError("freeze: nothing is left to train; leave some parameters out")

    def _is_frozen(self, norm: _BatchNorm) -> bool:
        return self._norms_frozen or (norm.affine and not norm.weight.requires_grad)
