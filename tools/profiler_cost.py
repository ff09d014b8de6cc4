"""What MemoryProfiler costs on the CPU: the time of a training step of a small CNN.

    python tools/profiler_cost.py

Prints the least processor time of a step (one thread, the first step of each epoch left out)
without the profiler, and with it for measured steps and for all the others.
"""

import tempfile
import time
from itertools import pairwise

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import mobilenet_v2
from typing_extensions import override

from razorlight.callbacks.memory_profiler import MemoryProfiler

BATCH, STEPS, MEASURED, ROUNDS = 8, 12, 6, 6


class Classifier(LightningModule):
    """MobileNetV2 on images of 64 x 64."""

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module = mobilenet_v2(num_classes=10)

    @override
    def training_step(self, batch: list[Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Clock(Callback):
    """Notes the processor time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @override
    def on_train_batch_end(self, *_: object) -> None:
        self.times.append(time.process_time())


def step_times(callbacks: list[Callback]) -> list[float]:
    """Milliseconds of every step of an epoch but the first."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(BATCH * STEPS, 3, 64, 64), torch.randint(10, (BATCH * STEPS,)))
    clock = Clock()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[*callbacks, clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tempfile.mkdtemp(),
    )
    trainer.fit(Classifier(), DataLoader(data, BATCH))
    return [1e3 * (end - start) for start, end in pairwise(clock.times)]


def main() -> None:
    """Measure in turns, and print three lines."""
    torch.set_num_threads(1)
    without, profiled = [], []
    for _ in range(ROUNDS):
        without.append(step_times([]))
        profiled.append(step_times([MemoryProfiler(steps=MEASURED, compare=False)]))
    plain = min(min(times) for times in without)
    measured = min(min(times[: MEASURED - 1]) for times in profiled)
    others = min(min(times[MEASURED - 1 :]) for times in profiled)
    print(f"without the profiler  {plain:7.1f} ms a step")
    print(f"a measured step       {measured:7.1f} ms ({measured / plain:.2f}x)")
    print(f"any other step        {others:7.1f} ms ({others / plain:.2f}x)")


if __name__ == "__main__":
    main()
