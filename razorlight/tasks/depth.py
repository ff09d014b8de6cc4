"""Monocular depth with the networks of segmentation_models_pytorch."""

from math import inf, log
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsolutePercentageError, MeanSquaredError, Metric, MetricCollection

from razorlight.errors import RazorError
from razorlight.layers import register
from razorlight.planning import Role
from razorlight.tasks.base import FineTuningTask
from razorlight.tasks.inference import crop_like, pad_to_stride
from razorlight.tasks.networks import smp_network


class DepthTask(FineTuningTask):
    """Fine-tune an smp network to tell the distance of each pixel.

    Batches are ``(images, depth)``: float32 (B, 3, H, W), and metres, float32 (B, H, W), where 0
    marks what was not measured and counts for nothing. The network gives the logarithm of the
    depth, so that its exponential is always positive; ``predict`` gives metres, float32 (B, H, W).

    Logs ``train/loss``, and for val and test ``loss`` and, each over all measured pixels of the
    split alike, ``AbsRel`` (mean of error / true depth), ``RMSE`` in metres, and ``delta1`` (share
    of pixels whose prediction is within a factor of 1.25 of the truth).
    Images whose sides the network's stride does not divide are padded, and their depth cropped.

    Args:
        architecture: an smp architecture, such as ``DPT`` or ``Unet``.
        encoder: one of smp's encoders, or one of timm's as ``tu-<name>``.
        weights: see :class:`SegmentationTask`.
        model_args: further arguments of the network, such as ``decoder_channels``.
        max_depth: limit in metres. Points measured farther away count for nothing, and no
            prediction exceeds the limit; None for no limit.
        silog_lambda: see :class:`SILogLoss`.
        **kwargs: see :class:`FineTuningTask`.

    Raises:
        RazorError: for an unknown architecture or encoder, weights that cannot be had or do not
            fit, ``max_depth`` not above 0, ``silog_lambda`` outside [0, 1], or arguments that
            :class:`FineTuningTask` refuses.

    Example:
        >>> import torch
        >>> task = DepthTask("Unet", "resnet18", max_depth=10.0)
        >>> images = torch.randn(2, 3, 64, 64)
        >>> task(images).shape  # the logarithm of metres
        torch.Size([2, 64, 64])
    """

    def __init__(
        self,
        architecture: str,
        encoder: str,
        weights: str = "none",
        model_args: dict[str, Any] | None = None,
        max_depth: float | None = None,
        silog_lambda: float = 0.85,
        **kwargs: Any,
    ) -> None:
        if max_depth is not None and max_depth <= 0:
            raise RazorError(f"max_depth is {max_depth} m; it must be above 0")
        super().__init__(
            smp_network(architecture, encoder, 1, weights, model_args or {}),
            MetricCollection(
                {
                    "AbsRel": MeanAbsolutePercentageError(),
                    "RMSE": MeanSquaredError(squared=False),
                    "delta1": WithinFactor(1.25),
                }
            ),
            **kwargs,
        )
        self.max_depth = inf if max_depth is None else max_depth
        self._loss = SILogLoss(silog_lambda)

    def forward(self, images: Tensor) -> Tensor:
        """The logarithm of the depth in metres, float (B, H, W)."""
        return crop_like(self.net(pad_to_stride(images, self.net)), images).squeeze(1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """SILog of log-depth (B, H, W) and metres (B, H, W)."""
        loss: Tensor = self._loss(outputs, targets.where(self._counts(targets), 0))
        return loss

    def predictions(self, outputs: Tensor) -> Tensor:
        """Metres, float32 (B, H, W)."""
        return outputs.float().clamp(max=log(self.max_depth)).exp()

    def score(
        self, metrics: Metric | MetricCollection, predictions: Tensor, targets: Tensor
    ) -> None:
        """Update ``metrics`` by the measured pixels of one batch."""
        counts = self._counts(targets)
        metrics.update(predictions[counts], targets[counts])

    def _counts(self, depth: Tensor) -> Tensor:
        return (depth > 0) & (depth <= self.max_depth)


class SILogLoss(nn.Module):
    """The scale-invariant error of Eigen et al. 2014 ("Depth map prediction from a single image").

    With ``d`` the difference of predicted and true log-depth at the measured pixels of an image,
    ``mean(d**2) - weight * mean(d)**2``; the mean of that over the images.

    Args:
        weight: lambda of the paper, in [0, 1], how far an error of the whole image's scale is
            forgiven: 0.5 in the paper, 0.85 since Lee et al. 2019 ("From big to small").

    Raises:
        RazorError: for a weight outside of [0, 1].
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise RazorError(f"silog_lambda is {weight}; it must be in [0, 1]")
        self.weight = weight

    def forward(self, log_depth: Tensor, depth: Tensor) -> Tensor:
        """The loss.

        Args:
            log_depth: predicted, float (B, H, W).
            depth: float32 (B, H, W), in the unit whose logarithm is predicted; 0 where it was not
                measured. An image without any measurement adds 0.
        """
        measured = depth > 0
        difference = log_depth.float() - depth.where(measured, 1).log()
        difference = difference.where(measured, 0)
        count = measured.sum((1, 2)).clamp(min=1)
        mean, mean_square = ((difference**power).sum((1, 2)) / count for power in (1, 2))
        return (mean_square - self.weight * mean**2).mean()


register(SILogLoss, role=Role.LOSS)


class WithinFactor(Metric):
    """Share of the predictions within a factor of the truth; both positive, of one shape.

    Args:
        factor: the factor, above 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    within: Tensor
    total: Tensor

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.add_state("within", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count the values of ``preds`` and ``target``."""
        ratio = torch.maximum(preds / target, target / preds)
        self.within += (ratio < self.factor).sum()
        self.total += target.numel()

    def compute(self) -> Tensor:
        """The share, in 0..1."""
        return self.within / self.total
