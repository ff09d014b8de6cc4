"""A Lightning project of its own: two callbacks, and nothing else changes."""

import timm
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from razorlight import BackRazor, MemoryProfiler


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = timm.create_model("vit_tiny_patch16_224", num_classes=10)

    def training_step(self, batch, _):
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


if __name__ == "__main__":
    data = TensorDataset(torch.randn(16, 3, 224, 224), torch.randint(10, (16,)))
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        log_every_n_steps=1,
        callbacks=[BackRazor(recipe="compact"), MemoryProfiler()],
    )
    trainer.fit(Classifier(), DataLoader(data, batch_size=8))
