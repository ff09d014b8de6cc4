"""Layers that get their weights from the first batch: ``nn.LazyLinear`` and the like."""

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn

from razorlight import BackRazor, MemoryProfiler, RazorError, razor_
from razorlight.callbacks import RunSummary


class Lazy(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.GELU(), nn.LazyLinear(8), nn.GELU(), nn.Linear(8, 2)
        )

    def training_step(self, batch, batch_idx):
        return self.net(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(*callbacks):
    torch.manual_seed(0)
    trainer = Trainer(
        max_steps=2,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Lazy(), torch.utils.data.DataLoader(torch.randn(8, 4), batch_size=4))


def test_the_plan_says_why_it_stays_dense():
    plan = razor_(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LazyLinear(3)))
    assert "1 it has no weights yet: run a batch through the network first" in plan.summary()


def test_a_run_converts_it_once_it_has_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    razor, profiler = BackRazor(), MemoryProfiler()
    fit(razor, profiler, RunSummary())
    assert len(razor.plan.only("converted")) == 4
    assert profiler.compared["dense"].stored > profiler.compared["razor"].stored > 0


def test_a_budget_is_refused_in_a_line():
    with pytest.raises(RazorError, match="Lazy has layers without weights, which the first batch"):
        fit(BackRazor(memory_budget=0.9))
