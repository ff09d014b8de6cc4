"""The Trainer of transformers, which knows nothing of razorlight: convert the model first."""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from razorlight import razor_

torch.manual_seed(0)
config = BertConfig(
    vocab_size=100,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    num_labels=2,
)
model = BertForSequenceClassification(config)
print(razor_(model, recipe="balanced").summary())

tokens, labels = torch.randint(5, 100, (32, 16)), torch.randint(2, (32,))
data = [{"input_ids": ids, "labels": label} for ids, label in zip(tokens, labels, strict=True)]
arguments = TrainingArguments(
    output_dir="runs",
    max_steps=4,
    per_device_train_batch_size=8,
    report_to="none",
    save_strategy="no",
    use_cpu=True,
)
result = Trainer(model=model, args=arguments, train_dataset=data).train()
print(f"loss {result.training_loss:.3f} after {result.global_step} steps")
