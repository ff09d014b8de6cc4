"""Lightning's search for the largest batch, in as much memory as a budget leaves."""

import pytest
import torch
import torch.nn.functional as F
from beside.runs import Small, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder
from torch.utils.data import DataLoader, TensorDataset

from razorlight import BackRazor, MemoryProfiler, OptimizerInBackward
from razorlight.memory import StorageMeter

BUDGET = 2 * 2**20
IMAGES = torch.randn(512, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(512) % 3


class Budget(StorageMeter):
    """Fails as torch does, at the operator whose output exceeds the budget."""

    def _note(self, storage):
        super()._note(storage)
        if self.live > BUDGET:
            storage.resize_(0)
            super()._note(storage)
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ...")


class Many(Small):
    def train_dataloader(self):
        return DataLoader(TensorDataset(IMAGES, LABELS), self.batch_size)

    def validation_step(self, batch, _):
        F.cross_entropy(self(batch[0]), batch[1])


def found(folder, *callbacks, **options):
    """The batch size, with which the rest of the fit has room too."""
    seed_everything(0, verbose=False)
    model = Many()
    finder = BatchSizeFinder(steps_per_trial=1, **options)
    with Budget() as budget:
        trainer(folder, *callbacks, finder, max_epochs=2).fit(model)
    assert model.trainer.current_epoch == 2
    assert model.batch_size == finder.optimal_batch_size
    # the next operator would have been too much, whether in forward or in backward
    assert BUDGET < budget.peak < 1.2 * BUDGET
    return model.batch_size


@pytest.mark.parametrize(
    ("options", "times"),
    [
        pytest.param({}, 2, marks=pytest.mark.long),
        ({"mode": "binsearch", "margin": 0.1}, 1.4),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_larger_batch_is_found(options, times, tmp_path):
    dense = found(tmp_path, **options)
    assert found(tmp_path, BackRazor("compact"), **options) >= times * dense
    # its trials step after backward
    others = [OptimizerInBackward(), MemoryProfiler()]
    assert found(tmp_path, BackRazor("compact"), *others, **options) >= times * dense
