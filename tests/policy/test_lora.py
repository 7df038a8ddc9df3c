"""Adapters are trained on a frozen model, which is the loaded model whenever they are off."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from sdar.errors import UserError
from sdar.policy.language_model import hf_model, weights_hash
from sdar.policy.log_probs import score_tokens
from sdar.policy.lora import LoraSettings, adapters_off, add_adapters, merge_adapters
from sdar.policy.trainable import trainable
from toys.families import BY_NAME as FAMILIES
from toys.models import tiny_random_model, toy_tokenizer
from toys.reference import naive_score_tokens

IDS = torch.arange(3, 23).reshape(2, 10)
REAL = torch.ones_like(IDS, dtype=torch.bool)
SCORED = REAL & (torch.arange(10) > 0)


def scores(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return score_tokens(model, IDS, REAL, SCORED).log_probs  # type: ignore[arg-type]


def adapted(dtype: torch.dtype = torch.float32, **settings: Any) -> torch.nn.Module:
    model = tiny_random_model(dtype=dtype)
    add_adapters(model, LoraSettings(**{"rank": 4, **settings}), "toy")
    return model


def learn(model: torch.nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-2)
    for _ in range(steps):
        (-score_tokens(model, IDS, REAL, SCORED).log_probs.sum()).backward()  # type: ignore[arg-type]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_new_adapters_change_nothing_and_switched_off_ones_never_did(dtype: torch.dtype) -> None:
    before = scores(tiny_random_model(dtype=dtype))
    model = adapted(dtype)
    assert torch.equal(scores(model), before)
    learn(model)
    assert not torch.equal(scores(model), before)
    with adapters_off(model) as frozen:  # type: ignore[arg-type]
        assert torch.equal(scores(frozen), before)
    assert not torch.equal(scores(model), before)


def test_adapters_alone_are_trained_also_after_they_were_off() -> None:
    model = adapted(torch.bfloat16)
    with pytest.raises(RuntimeError), adapters_off(model):  # type: ignore[arg-type]
        raise RuntimeError
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert names
    assert {parameter.dtype for parameter in trainable(model)} == {torch.float32}
    learn(model, steps=1)
    assert all(torch.count_nonzero(p) for name, p in model.named_parameters() if "lora_B" in name)


def test_the_first_values_do_not_depend_on_the_generators_state() -> None:
    torch.manual_seed(1)
    first = adapted().state_dict()
    torch.manual_seed(2)
    second = adapted().state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_head_in_parts_equals_the_model_as_a_whole_with_adapters() -> None:
    model = adapted()
    learn(model)
    with torch.no_grad():
        whole = naive_score_tokens(model, IDS, REAL, SCORED).log_probs  # type: ignore[arg-type]
    torch.testing.assert_close(scores(model), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_merged_adapters_are_a_plain_model_with_the_same_scores(kind: str) -> None:
    model: torch.nn.Module = tiny_random_model()
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64)).eval()
    names = set(model.state_dict())
    add_adapters(model, LoraSettings(rank=4), "toy")  # type: ignore[arg-type]
    learn(model)
    before = scores(model.eval())
    merge_adapters(model)  # type: ignore[arg-type]
    assert set(model.state_dict()) == names
    torch.testing.assert_close(scores(model), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "family", ["mixtral", "qwen3_moe", "olmoe", "glm4_moe", "qwen2_moe", "phimoe", "llama4_text", "gpt_oss", "jetmoe"]
)
def test_merged_adapters_of_experts_are_a_plain_model_with_the_same_scores(family: str, tmp_path: Path) -> None:
    """Each parameter of a layer of experts has an adapter of its own, around that of another; the folder reloads."""
    model = FAMILIES[family].model()
    names = set(model.state_dict())
    add_adapters(model, LoraSettings(rank=2), "toy")
    learn(model)
    before = scores(model.eval())
    merge_adapters(model)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(scores(model), before, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(scores(again), before, atol=1e-4, rtol=1e-4)


def test_routers_of_experts_take_no_adapter() -> None:
    """PhiMoE's and Llama 4's are linear layers that return more than a linear map."""
    for family in ("phimoe", "llama4_text"):
        model = FAMILIES[family].model()
        add_adapters(model, LoraSettings(rank=2), "toy")
        assert not [name for name, p in model.named_parameters() if p.requires_grad and "router" in name]


def test_targets_choose_the_layers() -> None:
    model = adapted(target_modules=["q_proj", "layers.1.mlp.down_proj"])
    hit = {name.split(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert hit == {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"}


@pytest.mark.parametrize("targets", [["q_proj", "query"], "query", [], ["lm_head"], ["embed_tokens"]])
def test_a_target_that_matches_nothing_is_one_sentence_with_what_there_is(targets: object) -> None:
    message = r"^model\.lora\.target_modules must be all-linear or .* of 'toy' \(.*q_proj.*\), got .* matches none$"
    with pytest.raises(UserError, match=message) as caught:
        adapted(target_modules=targets)
    assert "\n" not in str(caught.value)


def test_without_peft_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"model\.lora.*pip install 'sdar\[lora\]'"):
        adapted()


def test_a_loaded_model_keeps_the_hash_of_its_base(tmp_path: Path) -> None:
    base = tiny_random_model()
    base.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    policy = hf_model(str(tmp_path), lora=LoraSettings(2, 4, 0.0, ["v_proj"]))
    assert policy.content_hash == weights_hash(base) == hf_model(str(tmp_path)).content_hash
    assert policy.lora == LoraSettings(2, 4, 0.0, ["v_proj"])
    assert policy.architecture == "Qwen3ForCausalLM"
