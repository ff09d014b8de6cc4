"""The loss and the scores of depth, over what was measured and nothing else."""

import pytest
import torch

from razorlight.errors import RazorError
from razorlight.tasks import DepthTask
from razorlight.tasks.depth import SILogLoss


def ranger(**kwargs):
    return DepthTask("Unet", "tu-resnet10t", **kwargs)


def constant(log_depth, **kwargs):
    """A task that gives one log-depth everywhere."""
    task = ranger(**kwargs)
    torch.nn.init.zeros_(task.net.segmentation_head[0].weight)
    torch.nn.init.constant_(task.net.segmentation_head[0].bias, log_depth)
    return task


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_silog_by_its_formula(weight):
    log_depth, depth = torch.randn(2, 4, 5), 0.1 + torch.rand(2, 4, 5)
    depth[0, 1], depth[1, :, 2] = 0, 0
    expected = []
    for predicted, true in zip(log_depth, depth, strict=True):
        difference = predicted[true > 0] - true[true > 0].log()
        expected.append(difference.square().mean() - weight * difference.mean() ** 2)
    loss = SILogLoss(weight)(log_depth, depth)
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_a_common_factor_costs_nothing_where_lambda_is_one():
    depth = 1 + torch.rand(1, 8, 8)
    assert SILogLoss(1.0)((7 * depth).log(), depth) == pytest.approx(0, abs=1e-5)
    assert SILogLoss(0.85)((7 * depth).log(), depth) > 0.1


def test_unmeasured_pixels_have_no_gradient_and_an_empty_image_no_nan():
    log_depth = torch.randn(2, 4, 4, requires_grad=True)
    depth = torch.ones(2, 4, 4)
    depth[0], depth[1, 0] = 0, 0
    SILogLoss(0.85)(log_depth, depth).backward()
    assert torch.isfinite(log_depth.grad).all()
    assert not log_depth.grad[0].any()
    assert not log_depth.grad[1, 0].any()
    assert log_depth.grad[1, 1:].all()


def test_scores_over_measured_pixels(trainer, depths):
    (tested,) = trainer().test(constant(1.5), depths)
    true = depths.dataset.tensors[1]
    true = true[true > 0]
    predicted = torch.tensor(1.5).exp()
    assert tested["test/AbsRel"] == pytest.approx(((predicted - true).abs() / true).mean().item())
    rmse = (predicted - true).square().mean().sqrt().item()
    assert tested["test/RMSE"] == pytest.approx(rmse)
    within = (true < 1.25 * predicted) & (predicted < 1.25 * true)
    assert tested["test/delta1"] == pytest.approx(within.float().mean().item())


def test_farther_than_max_depth_counts_for_nothing(trainer, depths):
    task = constant(9.0, max_depth=5.0)
    (tested,) = trainer().test(task, depths)
    true = depths.dataset.tensors[1]
    near = true[(true > 0) & (true <= 5)]
    rmse = (5 - near).square().mean().sqrt().item()
    assert tested["test/RMSE"] == pytest.approx(rmse, rel=1e-4)
    (predicted, *_) = trainer().predict(task, depths)
    torch.testing.assert_close(predicted, torch.full((2, 32, 32), 5.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_depth": 0}, "max_depth is 0 m; it must be above 0"),
        ({"silog_lambda": 2}, r"silog_lambda is 2; it must be in \[0, 1\]"),
    ],
)
def test_arguments_refused(arguments, message):
    with pytest.raises(RazorError, match=message):
        ranger(**arguments)
