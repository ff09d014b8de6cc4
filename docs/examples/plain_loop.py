"""A training loop of torch, without Lightning: convert before it, restore after it."""

import timm
import torch
import torch.nn.functional as F

from razorlight import razor_, restore_
from razorlight.memory import measure_step

torch.manual_seed(0)
images, labels = torch.randn(8, 3, 64, 64), torch.randint(10, (8,))
model = timm.create_model("resnet18", num_classes=10)


def loss_of_batch():
    return F.cross_entropy(model(images), labels)


dense = measure_step(model, loss_of_batch, images)
print(razor_(model, recipe="balanced").summary())
razor = measure_step(model, loss_of_batch, images)
print(f"stored by a step: dense {dense.stored} bytes, razor {razor.stored} bytes")

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(3):
    optimizer.zero_grad()
    loss = loss_of_batch()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.3f}")

restore_(model)  # whoever saves the model now saves the plain one
