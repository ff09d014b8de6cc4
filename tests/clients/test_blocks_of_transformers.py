"""Blocks of transformers that take or return caches, states of an encoder, and biases."""

import copy

import pytest
import torch

from razorlight import razor_

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.clients

IDS = torch.randint(3, 90, (2, 16), generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SOUND = torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LANGUAGE = {"vocab_size": 100, "max_position_embeddings": 64, **SIZES}
HALF = {"layers": 2, "attention_heads": 4}
PAIR = {
    **{f"{part}_{size}": n for part in ("encoder", "decoder") for size, n in HALF.items()},
    "d_model": 64,
    "vocab_size": 100,
}
TEXT = {"input_ids": IDS, "labels": IDS}

NETWORKS = {
    "OPTForCausalLM": (LANGUAGE | {"ffn_dim": 64, "word_embed_proj_dim": 64}, TEXT),
    "GPTNeoXForCausalLM": (LANGUAGE, TEXT),
    "PhiForCausalLM": (LANGUAGE, TEXT),
    "Gemma2ForCausalLM": (LANGUAGE | {"num_key_value_heads": 2, "head_dim": 16}, TEXT),
    "MixtralForCausalLM": (LANGUAGE | {"num_key_value_heads": 2, "num_local_experts": 2}, TEXT),
    "T5ForConditionalGeneration": (
        {"d_model": 64, "num_layers": 2, "vocab_size": 100, "decoder_start_token_id": 0},
        TEXT,
    ),
    "WhisperForConditionalGeneration": (
        PAIR
        | {"num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 32}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        | {"suppress_tokens": None, "begin_suppress_tokens": None},
        {"input_features": SOUND, "labels": IDS},
    ),
    "BeitForImageClassification": (
        SIZES | {"image_size": 32, "patch_size": 8, "use_relative_position_bias": True},
        {"pixel_values": IMAGES, "labels": torch.tensor([0, 1])},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_run_again_they_are_as_dense(name):
    sizes, inputs = NETWORKS[name]
    torch.manual_seed(0)
    network = getattr(transformers, name)
    dense = network(network.config_class(**sizes)).train()
    razor = copy.deepcopy(dense)
    razor_(razor, "checkpoint")
    losses = []
    for model in (dense, razor):
        torch.manual_seed(1)
        losses.append(model(**inputs).loss)
        losses[-1].backward()
    assert torch.equal(*losses)
    pairs = zip(razor.parameters(), dense.parameters(), strict=True)
    gradients = [(p.grad.flatten(), q.grad.flatten()) for p, q in pairs if q.grad is not None]
    ours, theirs = (torch.cat(each) for each in zip(*gradients, strict=True))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99
