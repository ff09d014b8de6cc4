"""Dense values that somebody holds in spite of the conversion are named, with who holds them."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from razorlight import BackRazor, razor_
from razorlight.memory.held import ValuesWatch


class Net(nn.Module):
    """Layers that let go of all that is dense, and whatever ``middle`` does between them."""

    def __init__(self, middle=None):
        super().__init__()
        self.first, self.norm = nn.Linear(64, 64), nn.LayerNorm(64)
        self.fc1, self.act, self.fc2 = nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)
        self.middle = middle or nn.Identity()

    def forward(self, x):
        return self.fc2(self.middle(self.act(self.fc1(self.norm(self.first(x))))))


class MyLinear(nn.Linear):
    """A near miss."""


class Squared(nn.Module):
    def forward(self, x):
        return x * x


def held(net, recipe="balanced"):
    report = razor_(net, recipe)
    x = torch.randn(8, 16, 64)
    with ValuesWatch(net, report) as watch:
        loss = net(x).square().mean()
        found = watch.held(loss)
    loss.backward()
    assert not _global_forward_hooks
    assert not _global_forward_pre_hooks
    return found


@pytest.mark.parametrize("recipe", ["balanced", "exact", "compact", "paper"])
def test_nothing_is_held(recipe):
    # what the loss squares is held outside of the network
    found = [str(line) for line in held(Net(), recipe)]
    assert all("outside of the network" in line for line in found)


def test_a_near_miss_behind():
    lines = [str(line) for line in held(Net(MyLinear(64, 64)))]
    assert any("in middle (MyLinear) keeps them" in line and "act" in line for line in lines)


def test_a_second_consumer():
    lines = [str(line) for line in held(Net(Squared()))]
    assert any("mul in middle (Squared) keeps them" in line for line in lines)


def test_a_hook():
    net, kept = Net(), []
    handle = net.act.register_forward_hook(lambda _, args, out: kept.append(out))
    with ValuesWatch(net, razor_(net)) as watch:
        lines = [str(line) for line in watch.held(net(torch.randn(8, 16, 64)).mean())]
    assert len(net.act._forward_hooks) == 1
    handle.remove()
    assert any("a hook on act" in line and "act and 1 more (0.03 MiB)" in line for line in lines)


def test_a_list():
    net, kept = Net(), []
    net.middle.forward = lambda x: kept.append(x) or F.relu(x)
    with ValuesWatch(net, razor_(net)) as watch:
        lines = [str(line) for line in watch.held(net(torch.randn(8, 16, 64)).mean())]
    assert any("Python code refers to them" in line for line in lines)


def test_what_is_checkpointed_is_not_run_to_be_looked_at():
    class Counts(nn.Linear):
        runs = 0

        def forward(self, x):
            self.runs += 1
            return super().forward(x).tanh().exp()

    class Checkpointed(Net):
        def forward(self, x):
            return checkpoint(super().forward, self.first(x), use_reentrant=False)

    net = Checkpointed(Counts(64, 64))
    held(net)
    assert net.middle.runs == 2


def test_sparse_values_are_passed_over():
    class ToSparse(nn.Module):
        def forward(self, x):
            return x.relu().to_sparse()

    class Rows(Net):
        def forward(self, x):
            return super().forward(x.flatten(0, 1))

    held(Rows(ToSparse()))


def test_alike_blocks_make_one_line():
    net = nn.Sequential(*[Net(Squared()) for _ in range(3)])
    lines = held(net)
    inside = [line for line in lines if "middle" in line.holder]
    assert len(inside) == 1
    assert "*.middle (Squared)" in inside[0].holder
    assert len(inside[0].layers) >= 3


class Module(LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, _):
        return self.net(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.parametrize("middle", [Squared, nn.ReLU])
def test_back_razor_says_so_once_and_the_report_too(middle, tmp_path, recwarn):
    data = DataLoader(TensorDataset(torch.randn(8, 16, 64)), batch_size=4)
    razor = BackRazor()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=2, callbacks=[razor], default_root_dir=tmp_path, **options)
    trainer.fit(Module(Net(middle())), data)
    said = [str(w.message) for w in recwarn if "stay alive" in str(w.message)]
    assert len(said) == (middle is Squared)
    for line in said:
        assert "dense values of net.act" in line
        assert "mul in net.middle (Squared) keeps them for backward" in line
        assert line.removeprefix("BackRazor: ") in str(razor.plan)
