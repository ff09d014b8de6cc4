"""Two processes by DDP: what one process does with the same global batch."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from runs import Module, cnn, cosine, fit, images, loader, parameters, trainer, vit
from torch import nn

from razorlight import RECIPES, MemoryProfiler
from razorlight.callbacks import RunSummary
from razorlight.memory.history import read_history


class Branched(nn.Module):
    """A network with a layer that every second forward leaves out."""

    def __init__(self):
        super().__init__()
        self.net, self.sometimes, self.calls = vit(), nn.Linear(3, 3), 0

    def forward(self, x):
        self.calls += 1
        x = self.net(x)
        return self.sometimes(x) if self.calls % 2 else x


def by_ddp(build, recipe, strategy=None, **options):
    return fit(build, recipe, batch=4, devices=2, strategy=DDPStrategy(**strategy or {}), **options)


CASES = {
    "plain": (vit, {}, {}),
    "static_graph": (vit, {"static_graph": True}, {}),
    "find_unused_parameters": (Branched, {"find_unused_parameters": True}, {}),
    "no_sync": (vit, {}, {"accumulate_grad_batches": 2}),
}


@pytest.mark.parametrize(
    ("case", "recipe"),
    [("plain", recipe) for recipe in RECIPES]
    + [(case, recipe) for case in [*CASES][1:] for recipe in ("exact", "balanced")],
)
def test_same_as_one_process(processes, case, recipe):
    build, strategy, options = CASES[case]
    alone = fit(build, recipe, **options)
    first, second = processes.run(partial(by_ddp, strategy=strategy, **options), build, recipe)
    assert np.array_equal(first, second)
    # of short sequences one group holds several samples
    if recipe in ("balanced", "compact", "checkpoint"):
        start = parameters(build())
        assert cosine(first - start, alone - start) > 0.98
    else:
        np.testing.assert_allclose(first, alone, atol=1e-6)


def test_batch_norms_of_each_process(processes):
    dense, exact = (processes.run(by_ddp, cnn, recipe)[0] for recipe in (None, "exact"))
    np.testing.assert_allclose(exact, dense, atol=1e-5)


class TwoSizes(torch.utils.data.Dataset):
    """Images of 16 pixels for the first process, of 32 for the second."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return torch.ones(3, *[16 * (1 + index % 2)] * 2), index % 3


def profiled(folder, data, devices):
    """The peak that this process saw, and what one step stored, as converted and dense."""
    profiler = MemoryProfiler()
    callbacks = [profiler, RunSummary()]  # whose rank zero would wait for ever if it asked alone
    run = trainer("balanced", callbacks, devices=devices, strategy="ddp", default_root_dir=folder)
    run.fit(Module(cnn), loader(4, data))
    stored = {name: step.stored for name, step in profiler.compared.items()}
    return run.callback_metrics["peak_mib"].item(), stored


def test_memory_is_written_once_with_the_highest_peak(processes, tmp_path):
    (low, _), (high, _) = processes.run(profiled, tmp_path, TwoSizes(), 2)
    rows = read_history(tmp_path / "memory.csv")
    assert [(row.epoch, row.phase) for row in rows] == [(0, "train"), (1, "train")]
    assert low < high
    assert rows[-1].peak_mib == pytest.approx(high, abs=1e-3)
    assert (tmp_path / "memory.png").exists()


def test_a_process_stores_what_it_would_alone(processes, tmp_path):
    alone = profiled(tmp_path / "one", images(8), 1)
    for each in processes.run(profiled, tmp_path / "two", images(16), 2):
        assert each == alone
    one, two = (read_history(tmp_path / name / "memory.csv") for name in ("one", "two"))
    assert one == two
    assert len({row.stored_mib for row in one}) == 1
