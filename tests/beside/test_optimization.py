"""Every way to optimize, by the recipe exact: the run is the dense one."""

import pytest
import torch
import torch.nn.functional as F
from beside.runs import IMAGES, Small, assert_same, fit
from torch import nn

from razorlight import BackRazor


class ByHand(Small):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        self.manual_backward(self.loss(batch) / 2)
        if batch_idx % 2:
            self.clip_gradients(optimizer, 0.1, "norm")
            optimizer.step()
            optimizer.zero_grad()


class TwoOptimizers(ByHand):
    """Of one loss, whose graph is gone through twice."""

    def training_step(self, batch, _):
        loss = self.loss(batch)
        first, second = self.optimizers()
        self.toggle_optimizer(first)
        self.manual_backward(loss, retain_graph=True)
        self.untoggle_optimizer(first)
        self.manual_backward(loss)
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        backbone = torch.optim.SGD(self.backbone.parameters(), self.lr)
        return backbone, torch.optim.Adam(self.head.parameters(), 0.01)


class Gan(Small):
    """A generator of images, and the network as their judge."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(6, 4 * 16),
            nn.LayerNorm(4 * 16),
            nn.Unflatten(1, (4, 4, 4)),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 8, 2, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def training_step(self, batch, batch_idx):
        self.loss(batch)
        generator, judge = self.optimizers()
        noise = torch.randn(4, 6, generator=torch.Generator().manual_seed(batch_idx))
        made = self.generator(noise)
        self.toggle_optimizer(judge)
        loss = F.softplus(self(made.detach())).mean() + F.softplus(-self(batch[0])).mean()
        self._step(judge, loss)
        self.untoggle_optimizer(judge)
        self.toggle_optimizer(generator)
        judged = self(made)
        loss = F.softplus(-judged).mean()
        self.manual_backward(judged.square().mean(), retain_graph=True)
        self._step(generator, loss)
        self.untoggle_optimizer(generator)

    def _step(self, optimizer, loss):
        self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    def configure_optimizers(self):
        judge = [*self.backbone.parameters(), *self.head.parameters()]
        return torch.optim.Adam(self.generator.parameters(), 0.01), torch.optim.SGD(judge, 0.05)


class WithClosures(Small):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=2)


class WithinBackward(Small):
    """Each parameter is stepped as soon as it has its gradient."""

    def on_fit_start(self):
        for parameter in self.parameters():
            parameter.register_post_accumulate_grad_hook(self._step)

    @torch.no_grad()
    def _step(self, parameter):
        parameter.sub_(0.05 * parameter.grad)
        parameter.grad = None

    def configure_optimizers(self):
        return None


class FromOneBatchForEver(Small):
    """The same tensors each time, filled anew where no version tells of it."""

    def __init__(self):
        super().__init__()
        self.memory = IMAGES[:4].numpy().copy()
        self.images = torch.from_numpy(self.memory)
        self.others = nn.ModuleList([nn.Conv2d(3, 8, 8) for _ in range(3)])

    def training_step(self, batch, _):
        self.memory[:] = batch[0].numpy()
        others = sum(other(self.images).square().mean() for other in self.others)
        return self.loss((self.images, batch[1])) + others

    def on_after_backward(self):
        self.last = torch.cat([other.weight.grad.flatten() for other in self.others])


@pytest.mark.parametrize(
    "module",
    [ByHand, TwoOptimizers, Gan, WithClosures, WithinBackward, FromOneBatchForEver],
)
@pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None")
def test_optimized_as_dense(module, tmp_path):
    razor = fit(tmp_path, BackRazor("exact"), module=module)
    assert_same(razor, fit(tmp_path, module=module))


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"accumulate_grad_batches": 3},
        {"detect_anomaly": True},
        {"overfit_batches": 1},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_trained_as_dense(options, tmp_path):
    razor = fit(tmp_path, BackRazor("exact"), **options)
    assert_same(razor, fit(tmp_path, **options))


def test_a_batch_in_the_same_memory_is_stored_anew(tmp_path):
    """By a codec, whose record would be of the first batch for ever."""
    gradients = []
    for callbacks in ([], [BackRazor("balanced", exclude=["backbone", "head"])]):
        model = fit(tmp_path, *callbacks, module=FromOneBatchForEver, max_epochs=1)
        gradients.append(model.last)
    assert F.cosine_similarity(*gradients, dim=0) > 0.99
