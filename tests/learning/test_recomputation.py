"""Gradient checkpointing changes no figure, whatever a model would drop in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from sdar.policy.dropout import update_mode
from sdar.policy.forward import evaluation_mode
from sdar.policy.language_model import hf_model, weights_hash
from sdar.policy.lora import LoraSettings, add_adapters
from toys.models import toy_tokenizer
from toys.training import toy_datamodule, toy_module, train

SMALL = {"vocab_size": 300, "max_position_embeddings": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDTH = {"hidden_size": 16, "intermediate_size": 32}
DROPPING: dict[str, dict[str, Any]] = {
    # by modules
    "gpt2": {"vocab_size": 300, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "gpt_neox": SMALL | WIDTH | {"hidden_dropout": 0.3, "attention_dropout": 0.3},
    "phi": SMALL | WIDTH | {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attention_dropout": 0.3},
    # by functions, some of them in the very layer that is recomputed
    "opt": SMALL | {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32, "attention_dropout": 0.3},
    "starcoder2": SMALL | WIDTH | {"residual_dropout": 0.3, "embedding_dropout": 0.3, "attention_dropout": 0.3},
    # by what the configuration says at that moment
    "falcon": SMALL | {"hidden_size": 16, "alibi": False, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "gpt_neo": {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "max_position_embeddings": 256,
        "attention_types": [[["global"], 2]],
        "attention_dropout": 0.3,
        "resid_dropout": 0.3,
        "embed_dropout": 0.3,
    },
    # no dropout, but noise in the router
    "mixtral": SMALL | WIDTH | {"num_local_experts": 2, "num_key_value_heads": 2, "router_jitter_noise": 0.3},
}
"""Families that would draw something in training, and how."""


def saved(kind: str, folder: Path) -> Path:
    toy_tokenizer().save_pretrained(folder)
    config = AutoConfig.for_model(kind, **DROPPING[kind])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def figures(folder: Path, **settings: Any) -> dict[str, float]:
    policy = hf_model(str(folder), **settings)
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None, reuse_scores=False)
    return train(module, toy_datamodule(policy, tasks=2), 1).curve()[0]


@pytest.mark.parametrize("kind", DROPPING)
def test_recomputing_changes_no_figure_and_the_first_ratio_is_one(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path)
    plain, recomputed = figures(folder), figures(folder, gradient_checkpointing=True)
    assert recomputed == plain
    assert plain["train/approx_kl"] == plain["train/clip_fraction"] == plain["loss/kl"] == 0
    assert plain["train/grad_norm"] > 0


def test_the_layers_of_the_update_are_recomputed(tmp_path: Path) -> None:
    """Otherwise the test above would hold for nothing."""
    policy = hf_model(str(saved("gpt2", tmp_path)), gradient_checkpointing=True)
    runs = []
    for part in policy.model.transformer.h:
        part.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    update_mode(policy.model)
    ids = torch.arange(3, 9)[None]
    policy.model(input_ids=ids, use_cache=False).logits.sum().backward()
    assert len(runs) == 2 * len(policy.model.transformer.h)
    assert not any(part.training for part in policy.model.transformer.h[0].children())


@pytest.mark.parametrize("kind", ["gpt2", "falcon"])
def test_a_model_without_its_dropout_keeps_configuration_and_hash(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "from")
    policy = hf_model(str(folder))
    policy.model.save_pretrained(tmp_path / "to")
    before, after = (AutoConfig.from_pretrained(path).to_dict() for path in (folder, tmp_path / "to"))
    assert {**after, "_name_or_path": ""} == {**before, "_name_or_path": ""}
    original: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    assert policy.content_hash == weights_hash(original)


def test_every_module_gets_its_mode_back(tmp_path: Path) -> None:
    policy = hf_model(str(saved("gpt2", tmp_path)), gradient_checkpointing=True)
    add_adapters(policy.model, LoraSettings(rank=2, dropout=0.5), "gpt2")
    update_mode(policy.model)
    before = {name: part.training for name, part in policy.model.named_modules()}
    dropping = {name for name, training in before.items() if training and "lora_dropout" in name}
    assert dropping
    assert {name for name, training in before.items() if training} == dropping | {"transformer.h.0", "transformer.h.1"}
    with evaluation_mode(policy.model):
        assert not any(part.training for part in policy.model.modules())
    assert {name: part.training for name, part in policy.model.named_modules()} == before
