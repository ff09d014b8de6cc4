"""BackRazor with a budget of the peak, in place of a recipe."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder
from small_networks import tiny_vit
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from razorlight import BackRazor, MemoryProfiler, Plan, RazorError
from razorlight.memory.history import read_history


class Classifier(LightningModule):
    batch_size = 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = tiny_vit(64, 8)

    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def train_dataloader(self):
        image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
        return DataLoader([(image, 1)] * 16, batch_size=self.batch_size)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def fit(tmp_path, *callbacks, module=None, **options):
    options = {"max_epochs": 1, "default_root_dir": tmp_path, "accelerator": "cpu"} | options
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    trainer = Trainer(callbacks=[*callbacks], **options)
    trainer.fit(module or Classifier())
    return trainer


def test_the_peak_of_a_run_is_within_the_budget(tmp_path, caplog):
    razor, profiler = BackRazor(memory_budget=0.7), MemoryProfiler()
    with caplog.at_level("INFO"):
        trainer = fit(tmp_path, profiler, razor)
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("BackRazor: a peak of ") for line in said)
    assert any("the peak of the first epoch is" in line for line in said)
    measured = profiler.compared["razor"].peak / profiler.compared["dense"].peak
    assert 0.5 < measured < 0.75  # of forward and backward alone
    saved = next(tmp_path.rglob("plan.yaml"))
    assert Plan.load(saved).layers == razor.plan.layers
    assert type(trainer.model.net.blocks[0]).__module__.startswith("timm")
    assert fit(tmp_path, BackRazor(plan=saved))


class Scores(Classifier):
    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)

    def training_step(self, batch, batch_idx):
        self.log("accuracy", self.accuracy(self.net(batch[0]), batch[1]))
        loss = super().training_step(batch, batch_idx)
        self.log("number", loss.item())
        return loss


def test_metrics_and_accumulation(tmp_path):
    razor, profiler = BackRazor(memory_budget=0.8), MemoryProfiler(compare=False)
    trainer = fit(
        tmp_path, razor, profiler, module=Scores(), accumulate_grad_batches=2, max_epochs=2
    )
    assert "number" in trainer.callback_metrics
    rows = read_history(next(tmp_path.rglob("memory.csv")))
    assert rows[-1].peak_mib * 2**20 == pytest.approx(razor.promised_peak, rel=0.03)


def test_the_run_is_the_dense_one_where_it_fits(tmp_path, caplog):
    modules = Classifier(), Classifier()
    with caplog.at_level("INFO"):
        fit(tmp_path, BackRazor(memory_budget="1GiB"), module=modules[0])
    fit(tmp_path, module=modules[1])
    assert "BackRazor: dense fits into 1024.0 MiB" in caplog.text
    for one, other in zip(*(module.parameters() for module in modules), strict=True):
        assert torch.equal(one, other)


class ByHand(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


def test_refused_in_one_line(tmp_path):
    with pytest.raises(RazorError, match="give no recipe, sparsity or plan beside it"):
        BackRazor("compact", memory_budget=0.5)
    with pytest.raises(RazorError, match="memory_budget is 3"):
        BackRazor(memory_budget=3)
    with pytest.raises(RazorError, match="the smallest budget for this batch is"):
        fit(tmp_path, BackRazor(memory_budget="1MiB"))
    with pytest.raises(RazorError, match="which Lightning steps; give ByHand a recipe"):
        fit(tmp_path, BackRazor(memory_budget=0.5), module=ByHand())
    with pytest.raises(RazorError, match="BatchSizeFinder tries its steps before BackRazor can"):
        fit(tmp_path, BackRazor(memory_budget=0.5), BatchSizeFinder())
