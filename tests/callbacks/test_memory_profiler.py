import csv
import json
import os
import random
from functools import partial

import matplotlib.image
import pytest
import torch
import torchmetrics
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from razorlight.callbacks.memory_profiler import MemoryProfiler
from razorlight.conversion import is_converted, razor_
from razorlight.errors import RazorError
from razorlight.memory.history import read_history

MIB = 2**20


class Classifier(LightningModule):
    """Has all that a measurement could disturb: BatchNorm, dropout, a metric, logs."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(16, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, 4),
        )
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=4)
        self.losses = []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        scores = self.net(images)
        loss = F.cross_entropy(scores, labels)
        self.accuracy(scores, labels)
        self.log("train/accuracy", self.accuracy)
        self.losses.append((loss.item(), random.random()))
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val/loss", F.cross_entropy(self.net(images), labels))

    def test_step(self, batch, batch_idx):
        self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


class Manual(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx)["loss"])
        optimizer.step()


class Broken(Classifier):
    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            raise ZeroDivisionError


def loader(batch, batches=3):
    torch.manual_seed(1)
    size = batch * batches
    return DataLoader(TensorDataset(torch.randn(size, 16), torch.randint(4, (size,))), batch)


def trainer_in(folder, *callbacks, **settings):
    return Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"logger": False, "max_epochs": 2, "log_every_n_steps": 1, **settings},
    )


def meters_left_on():
    return _get_current_dispatch_mode_stack()


def rows_of(folder, phase):
    return [row for row in read_history(folder / "memory.csv") if row.phase == phase]


def test_fit_writes_a_row_for_each_epoch_and_phase_and_a_plot(tmp_path):
    model = Classifier()
    trainer_in(tmp_path, MemoryProfiler()).fit(model, loader(8), loader(8))
    rows = read_history(tmp_path / "memory.csv")
    assert [(row.epoch, row.phase) for row in rows] == [
        (0, "train"),
        (0, "val"),
        (1, "train"),
        (1, "val"),
    ]
    parameters = sum(p.numel() for p in model.parameters()) * 4 / MIB
    train, val = rows[:2]
    assert train.parameters_mib == train.gradients_mib == pytest.approx(parameters, abs=1e-3)
    assert train.optimizer_mib == pytest.approx(2 * parameters, abs=1e-3)
    # ReLU's output, dropout's and its mask, x-hat's source, ... at least five of (8, 64)
    assert train.stored_mib > 5 * 8 * 64 * 4 / MIB
    assert train.peak_mib > 4 * parameters + train.stored_mib - 2e-3
    assert val.stored_mib is None
    assert matplotlib.image.imread(tmp_path / "memory.png").shape[2] == 4
    assert not meters_left_on()


@pytest.mark.parametrize(("train_batch", "val_batch"), [(8, 4096), (4096, 8)])
def test_phases_do_not_mix(tmp_path, train_batch, val_batch):
    trainer = trainer_in(tmp_path, MemoryProfiler(compare=False), val_check_interval=1)
    model = Classifier()
    trainer.fit(model, loader(train_batch), loader(val_batch))
    trainer.test(model, loader(8), verbose=False)
    peaks = {p: max(r.peak_mib for r in rows_of(tmp_path, p)) for p in ("train", "val", "test")}
    large = 4096 * 64 * 4 / MIB  # one activation of the large batch
    assert (peaks["train"] > large) == (train_batch == 4096)
    assert (peaks["val"] > large) == (val_batch == 4096)
    assert peaks["test"] < large


def test_validation_within_an_epoch_is_no_part_of_train(tmp_path):
    for interval in (1, 3):
        folder = tmp_path / str(interval)
        profiler = MemoryProfiler(steps=3, compare=False)
        trainer = trainer_in(folder, profiler, val_check_interval=interval)
        trainer.fit(Classifier(), loader(8), loader(64))
    assert rows_of(tmp_path / "1", "train") == rows_of(tmp_path / "3", "train")
    assert rows_of(tmp_path / "1", "val") == rows_of(tmp_path / "3", "val")


def test_what_is_logged_is_what_is_written(tmp_path):
    logger = CSVLogger(tmp_path)
    trainer = trainer_in(tmp_path, MemoryProfiler(), logger=logger)
    model = Classifier()
    trainer.fit(model, loader(8), loader(16))
    trainer.test(model, loader(32), verbose=False)
    with open(os.path.join(logger.log_dir, "metrics.csv"), newline="") as file:
        logged = list(csv.DictReader(file))
    rows = read_history(tmp_path / "lightning_logs" / "version_0" / "memory.csv")
    assert {row.phase for row in rows} == {"train", "val", "test"}
    for row in rows:
        for name, size in row.sizes().items():
            column = f"memory/{row.phase}_{name}"
            (value,) = (r[column] for r in logged if r[column] and int(r["epoch"]) == row.epoch)
            assert float(value) == pytest.approx(size, abs=6e-4)


def test_the_progress_bar_shows_the_peak_of_the_epoch(tmp_path):
    class Bar(Callback):
        seen = []

        def on_train_batch_end(self, trainer, *args):
            self.seen.append(trainer.progress_bar_metrics["peak_mib"])

    profiler = MemoryProfiler(steps=1, compare=False)
    trainer_in(tmp_path, profiler, Bar(), max_epochs=1).fit(Classifier(), loader(8), loader(64))
    (row,) = rows_of(tmp_path, "train")
    assert Bar.seen == pytest.approx([row.peak_mib] * 3, abs=6e-4)


def test_a_second_fit_and_a_validation_append(tmp_path):
    trainer_in(tmp_path, MemoryProfiler(), max_epochs=1).fit(Classifier(), loader(8), loader(8))
    profiler = MemoryProfiler()
    for _ in range(2):
        trainer_in(tmp_path, profiler, max_epochs=1).fit(Classifier(), loader(8), loader(8))
    trainer_in(tmp_path, profiler).validate(Classifier(), loader(8), verbose=False)
    phases = [row.phase for row in read_history(tmp_path / "memory.csv")]
    assert phases == ["train", "val"] * 3 + ["val"]


def test_resuming_goes_on_in_the_same_file(tmp_path):
    first = trainer_in(tmp_path, MemoryProfiler(), max_epochs=1)
    first.fit(Classifier(), loader(8), loader(8))
    first.save_checkpoint(tmp_path / "last.ckpt")
    again = trainer_in(tmp_path, MemoryProfiler(), max_epochs=2)
    again.fit(Classifier(), loader(8), loader(8), ckpt_path=tmp_path / "last.ckpt")
    assert [row.epoch for row in rows_of(tmp_path, "train")] == [0, 1]


def test_an_exception_turns_the_meter_off_and_keeps_finished_epochs(tmp_path):
    class Fails(Classifier):
        def training_step(self, batch, batch_idx):
            if self.current_epoch == 1:
                assert meters_left_on()
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    with pytest.raises(ZeroDivisionError):
        trainer_in(tmp_path, MemoryProfiler()).fit(Fails(), loader(8), loader(8))
    assert not meters_left_on()
    assert [row.epoch for row in rows_of(tmp_path, "train")] == [0]
    with pytest.raises(ZeroDivisionError):
        trainer_in(tmp_path / "val", MemoryProfiler()).fit(Broken(), loader(8), loader(8))
    assert not meters_left_on()


def test_skipped_batches_do_not_leave_the_meter_on(tmp_path):
    class Skips(Classifier):
        def on_train_batch_start(self, batch, batch_idx):
            return -1

    trainer_in(tmp_path, MemoryProfiler()).fit(Skips(), loader(8), loader(8))
    assert not meters_left_on()


def test_steps_that_are_not_measured_run_without_a_meter(tmp_path):
    class Spy(Callback):
        on = []

        def on_after_backward(self, trainer, pl_module):
            self.on.append(len(meters_left_on()))

    profiler = MemoryProfiler(steps=1, compare=False)
    trainer = trainer_in(tmp_path, profiler, Spy(), accumulate_grad_batches=2, max_epochs=1)
    trainer.fit(Classifier(), loader(8, batches=4), loader(8))
    assert Spy.on == [1, 1, 0, 0]  # one optimizer step is two batches
    (row,) = rows_of(tmp_path, "train")
    # the second forward finds gradients there: they are not stored for backward
    alone = MemoryProfiler(steps=1, compare=False)
    trainer_in(tmp_path / "1", alone, max_epochs=1).fit(Classifier(), loader(8, batches=1))
    assert row.stored_mib == pytest.approx(rows_of(tmp_path / "1", "train")[0].stored_mib, abs=2e-3)


def test_manual_optimization(tmp_path, capsys, caplog):
    with caplog.at_level("INFO"):
        trainer_in(tmp_path, MemoryProfiler()).fit(Manual(), loader(8), loader(8))
    row = rows_of(tmp_path, "train")[-1]
    assert row.stored_mib is None
    assert row.gradients_mib == row.parameters_mib > 0
    assert "not compared under manual optimization" in caplog.text
    assert "one step" not in capsys.readouterr().out


@pytest.mark.parametrize("converted", [False, True])
def test_the_run_is_that_without_the_profiler(tmp_path, converted):
    runs = []
    for callbacks in ([], [MemoryProfiler()]):
        seed_everything(3, verbose=False)
        model = Classifier()
        if converted:
            razor_(model, sparsity=0.5)
        trainer = trainer_in(tmp_path, *callbacks)
        trainer.fit(model, loader(8), loader(8))
        runs.append((model, trainer.callback_metrics, torch.get_rng_state()))
    (plain, metrics, random), (profiled, profiled_metrics, profiled_random) = runs
    assert plain.losses == profiled.losses
    assert len(plain.losses) == 6
    for (name, before), after in zip(
        plain.state_dict().items(), profiled.state_dict().values(), strict=True
    ):
        assert torch.equal(before, after), name
    assert torch.equal(random, profiled_random)
    for name, value in metrics.items():
        assert torch.equal(value, profiled_metrics[name]), name
    assert is_converted(profiled) == converted


def test_the_copies_log_nothing(tmp_path):
    class Numbered(Classifier):
        calls = []

        def training_step(self, batch, batch_idx):
            self.calls.append(batch_idx)  # the class's list, which a copy shares
            self.log(f"train/call_{len(self.calls)}", 1.0)
            return super().training_step(batch, batch_idx)

    model = Numbered()
    razor_(model)
    trainer = trainer_in(tmp_path, MemoryProfiler(), max_epochs=1)
    trainer.fit(model, loader(8))
    # the first batch thrice razor, thrice dense, and in the run
    assert Numbered.calls == [0, 0, 0, 0, 0, 0, 0, 1, 2]
    numbers = sorted(name[-1] for name in trainer.callback_metrics if "call" in name)
    assert numbers == ["7", "8", "9"]


def test_what_sets_the_peak_is_named(tmp_path, capsys):
    torch.manual_seed(0)
    model, profiler = Classifier(), MemoryProfiler()
    razor_(model)
    trainer_in(tmp_path, profiler, max_epochs=1).fit(model, loader(8))
    said = capsys.readouterr().out
    for mode, step in profiler.compared.items():
        assert sum(step.explained.kinds.values()) == step.explained.nbytes
        assert step.explained.nbytes == pytest.approx(step.peak, rel=0.02)
        assert sum(step.explained.layers.values()) <= step.stored
        assert f"{mode}: its peak is {step.explained.instant}" in " ".join(said.split())
    assert "at its peak: records" in said
    page = next(tmp_path.rglob("memory.html")).read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "http" not in page
    for name, size in profiler.compared["dense"].explained.layers.items():
        assert f"<td>{name}</td><td>{size / MIB:.2f}</td>" in page
    saved = json.loads(next(tmp_path.rglob("step.json")).read_text())
    assert saved["razor"]["explained"]["kinds"] == profiler.compared["razor"].explained.kinds


def test_steps_that_are_not_alike_are_measured_all_the_same(tmp_path):
    class Shrinks(Classifier):
        rows = [64]

        def training_step(self, batch, batch_idx):
            self.rows[0] = max(1, self.rows[0] // 2)
            loss = super().training_step(batch, batch_idx)["loss"]
            return loss + loss.expand(self.rows[0], 2**14).clone().sum()

    profiler = MemoryProfiler()
    trainer_in(tmp_path, profiler, max_epochs=1).fit(Shrinks(), loader(8))
    assert profiler.compared["dense"].explained is None
    assert profiler.compared["dense"].peak > 0


def test_table_compares_one_step_dense_and_razor(tmp_path, capsys):
    class Convert(Callback):
        def setup(self, trainer, pl_module, stage):
            razor_(pl_module, sparsity=0.9)

    trainer_in(tmp_path, MemoryProfiler(), Convert()).fit(Classifier(), loader(64), loader(8))
    lines = capsys.readouterr().out.splitlines()
    assert "Memory in MiB, measured: batch 64, 32-true, cpu" in lines[0]
    (stored,) = (line for line in lines if "one step: stored" in line)
    _, dense, razor, ratio = stored.strip("│ ").replace(" ", "").split("│")
    assert float(dense) > 2 * float(razor)
    assert float(ratio.rstrip("x")) > 2
    (of_run,) = (line for line in lines if "run: train stored" in line)
    assert of_run.strip("│ ").replace(" ", "").split("│")[1:3] == ["", razor]
    assert any("val/loss" in line for line in lines)
    assert lines[-2:] == [str(tmp_path / "memory.csv"), str(tmp_path / "memory.png")]
    assert max(len(line) for line in lines[:-2]) <= 80


def test_the_run_that_a_module_holds_is_not_copied(tmp_path, capsys):
    module = Classifier()
    trainer = trainer_in(tmp_path, MemoryProfiler(), max_epochs=1)
    module.held = [trainer]
    # nor can it be, while processes load its batches
    data = loader(16).dataset
    trainer.fit(module, DataLoader(data, 8, num_workers=1, persistent_workers=True))
    assert "one step: stored" in capsys.readouterr().out


def test_a_step_without_enough_memory_is_said_to_be(tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("razorlight.callbacks.step_comparison.measure_step", fail)
    trainer_in(tmp_path, MemoryProfiler(), max_epochs=1).fit(Classifier(), loader(8))
    assert "out of memory" in capsys.readouterr().out


def test_a_validation_without_batches_is_no_error(tmp_path):
    class Empty(IterableDataset):
        def __iter__(self):
            return iter(())

    trainer_in(tmp_path, MemoryProfiler()).fit(Classifier(), loader(8), DataLoader(Empty()))
    assert [row.peak_mib for row in rows_of(tmp_path, "val")] == [0.0, 0.0]


def test_sharded_strategies_are_not_compared(tmp_path, caplog):
    class Sharded(SingleDeviceStrategy):
        pass

    trainer = trainer_in(tmp_path, MemoryProfiler(), max_epochs=1, strategy=Sharded("cpu"))
    with caplog.at_level("INFO"):
        trainer.fit(Classifier(), loader(8))
    assert "not compared under Sharded" in caplog.text


def test_optimizer_factories_are_not_copied(tmp_path, capsys):
    module = Classifier()
    # LightningCLI's hold all that it made, workers of loaders too
    module.make_optimizer = partial(torch.optim.SGD, (value for value in range(3)))
    trainer_in(tmp_path, MemoryProfiler(), max_epochs=1).fit(module, loader(8))
    assert "dense" in capsys.readouterr().out


def test_fast_dev_run_writes_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer_in(tmp_path, MemoryProfiler(), fast_dev_run=True).fit(Classifier(), loader(8))
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused_in_one_line(tmp_path):
    with pytest.raises(RazorError, match="steps must be at least 1, got 0"):
        MemoryProfiler(steps=0)
    (tmp_path / "memory.csv").write_text("something,else\n")
    with pytest.raises(RazorError, match=r"memory\.csv: its columns are something,else"):
        trainer_in(tmp_path, MemoryProfiler()).fit(Classifier(), loader(8))

    uncopied = Classifier()
    uncopied.generator = (i for i in range(3))
    with pytest.raises(RazorError, match=r"Classifier cannot be copied .* set compare: false"):
        trainer_in(tmp_path / "a", MemoryProfiler()).fit(uncopied, loader(8))

    class Skips(Classifier):
        def training_step(self, batch, batch_idx):
            return None

    with pytest.raises(RazorError, match=r"returned no loss .* set compare: false"):
        trainer_in(tmp_path / "b", MemoryProfiler()).fit(Skips(), loader(8))
