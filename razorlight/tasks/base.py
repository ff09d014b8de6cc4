"""The base of all tasks: training, scoring and prediction of a network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import AdamW, Optimizer
from torchmetrics import Metric, MetricCollection

from razorlight._torch import NORMS
from razorlight.errors import RazorError
from razorlight.patterns import check_patterns, matches_any
from razorlight.tasks.parameters import LR_SCALE, parameter_groups
from razorlight.tasks.schedule import Schedule

Batch = tuple[Tensor, Tensor]


class FineTuningTask(LightningModule, ABC):
    """A network, a loss over its outputs, and metrics over its predictions.

    Batches are ``(images, targets)``: images float32 (B, 3, H, W), already normalised, and one
    target per image (B,), several (B, targets), or one per pixel (B, H, W). Each task of dense
    prediction says which target, 255 or 0, stands for "unknown" and counts for nothing.

    Hyperparameters are not saved in checkpoints: Lightning's command line would silently prefer
    them to the options that its user gives. They are in the run's ``config.yaml``.

    Args:
        net: maps images to outputs, such as logits (B, classes) or (B, classes, H, W).
        metrics: of predictions and targets; logged as ``val/<name>`` and ``test/<name>``.
        optimizer: makes the optimizer from parameter groups; AdamW with a learning rate of 1e-4 if
            None. Biases and the parameters of norms are in a group without weight decay.
        schedule: course of the learning rate over the run; constant if None.
        layer_decay: factor, in (0, 1], from each layer's learning rate to that of the layer below,
            as in BEiT; for timm's classifiers and smp's DPT on a ViT.
        lr_multipliers: factors of the learning rate by globs over parameter names, such as
            ``{net.encoder: 0.1}``.
        freeze: globs over the names of parameters that are not trained (``net.encoder``,
            ``net.blocks.[0-5]``).
        freeze_norm: Whether to leave all normalisation layers as they are, scale and shift as well
            as BatchNorm's running statistics.
        flip_test: Whether evaluation and prediction average the outputs of each image and its
            mirror image.

    Raises:
        RazorError: if a glob matches nothing, nothing is left to train, or ``layer_decay`` does not
            go with the network.

    Example:
        A task of one's own says its loss and its predictions:

        >>> import torch
        >>> from torchmetrics import MeanAbsoluteError, MetricCollection
        >>> class Regression(FineTuningTask):
        ...     def loss(self, outputs, targets):
        ...         return torch.nn.functional.mse_loss(outputs, targets)
        ...
        ...     def predictions(self, outputs):
        ...         return outputs
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1))
        >>> task = Regression(net, MetricCollection({"mae": MeanAbsoluteError()}))
        >>> task(torch.zeros(4, 3, 2, 2)).shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        net: nn.Module,
        metrics: MetricCollection,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule | None = None,
        layer_decay: float | None = None,
        lr_multipliers: dict[str, float] | None = None,
        freeze: list[str] | None = None,
        freeze_norm: bool = False,
        flip_test: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.schedule = schedule
        self.flip_test = flip_test
        self._make_optimizer = optimizer or partial(AdamW, lr=1e-4)
        self._layer_decay = layer_decay
        self._lr_multipliers = lr_multipliers or {}
        self._freeze(freeze or (), freeze_norm)
        self._parameter_groups()  # a mistake shows before the data are read
        # Lightning keeps the mode that it finds, so BatchNorm's is set here
        self.train()

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The scalar to minimise.

        Args:
            outputs: outputs of the network, float (B, ...).
            targets: targets of the batch.
        """

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """The predictions in the network's outputs: they are scored, and ``predict`` gives them."""

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs for ``images``."""
        return self.net(images)

    def infer(self, images: Tensor) -> Tensor:
        """The outputs for evaluation and prediction.

        With ``flip_test`` they are the mean over each image and its mirror image.
        """
        outputs = self.infer_once(images)
        if not self.flip_test:
            return outputs
        mirrored = self.infer_once(images.flip(-1))
        per_pixel = mirrored.ndim > 2
        return (outputs + (mirrored.flip(-1) if per_pixel else mirrored)) / 2

    def infer_once(self, images: Tensor) -> Tensor:
        """The outputs for images as they are, not mirrored; here by one pass over whole images."""
        return self(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, logged as ``train/loss``; its mean as ``train/loss_epoch``."""
        loss = self.training_loss(*batch)
        self.log("train/loss", loss, prog_bar=True)
        # an epoch may be shorter than the interval at which losses of batches are logged
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def training_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of one batch."""
        return self.loss(self(images), targets)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and metrics as ``val/...``; returns predictions, as :meth:`predict_step`."""
        return self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and metrics as ``test/...``; returns predictions, as :meth:`predict_step`."""
        return self._evaluate(batch, "test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The :meth:`predictions` for a batch; its targets are not read."""
        images, _ = batch
        return self.predictions(self.infer(images))

    def _evaluate(self, batch: Batch, stage: str, metrics: MetricCollection) -> Tensor:
        images, targets = batch
        outputs = self.infer(images)
        predictions = self.predictions(outputs)
        self.score(metrics, predictions, targets)
        self.log(f"{stage}/loss", self.loss(outputs, targets), sync_dist=True)
        self.log_dict(metrics, prog_bar=True)
        return predictions

    def score(
        self, metrics: Metric | MetricCollection, predictions: Tensor, targets: Tensor
    ) -> None:
        """Update ``metrics`` by one batch."""
        metrics.update(predictions, targets)

    def configure_optimizers(self) -> Any:
        """The optimizer over trainable parameters and, if there is one, its schedule by step.

        Raises:
            RazorError: if the rate should fall to 0 at the end of a run that has no end.
        """
        optimizer = self.make_optimizer()
        if self.schedule is None:
            return optimizer
        scheduler = self.schedule.build(optimizer, self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def make_optimizer(self) -> Optimizer:
        """The optimizer over the trainable parameters, without its schedule.

        Raises:
            RazorError: if the optimizer refuses its arguments, or groups of parameters.
        """
        try:
            optimizer: Optimizer = self._make_optimizer(self._parameter_groups())
        except (TypeError, ValueError) as error:
            raise RazorError(
                f"optimizer: {error}; change its arguments, or take another"
            ) from error
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * group.pop(LR_SCALE)
        return optimizer

    def _parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self, self._layer_decay, self._lr_multipliers)

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
