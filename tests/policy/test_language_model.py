"""Models load with all that a rollout needs, or say in one sentence why not."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from sdar.errors import UserError
from sdar.policy.language_model import LanguageModel, hf_model, tiny_model, weights_hash
from toys.models import tiny_random_model, toy_tokenizer


def _save(folder: Path, model: torch.nn.Module | None = None, template: str | None = None) -> Path:
    tokenizer = toy_tokenizer() if template is None else toy_tokenizer(template or None)
    tokenizer.save_pretrained(folder)
    (model or tiny_random_model()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("build", [tiny_model, hf_model])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_comes_back_as_it_was(build, dtype: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    original = tiny_random_model()
    policy = build(str(_save(tmp_path, original)), dtype=dtype)
    assert isinstance(policy, LanguageModel)
    assert policy.model.dtype == getattr(torch, dtype)
    assert not policy.model.training
    assert policy.context_tokens == 512
    assert policy.name == str(tmp_path)
    assert policy.chat.decode(policy.chat.privileged("abc")) == "abc"
    assert policy.pad_id == policy.tokenizer.pad_token_id
    if dtype == "float32":
        assert policy.content_hash == weights_hash(original)


def test_the_hash_tells_weights_apart() -> None:
    model = tiny_random_model()
    before = weights_hash(model)
    assert before == weights_hash(tiny_random_model())
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-6
    assert weights_hash(model) != before


def test_a_missing_pad_token_is_replaced_by_the_end_token(tmp_path: Path) -> None:
    policy = tiny_model(_save(tmp_path))
    policy.tokenizer.pad_token = None
    assert policy.pad_id == policy.chat.end_id


def test_other_architectures_play(tmp_path: Path) -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    assert hf_model(str(_save(tmp_path, gpt2))).context_tokens == 64


def test_windowed_attention_does_not_end_the_context(tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=48, max_position_embeddings=256,
    )  # fmt: skip
    assert hf_model(str(_save(tmp_path, MistralForCausalLM(config)))).context_tokens == 256


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    mamba = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(UserError, match=r"model\.name.*plain attention"):
        hf_model(str(_save(tmp_path, mamba)))


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
def test_an_unknown_model_is_one_sentence(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"^model\.name: '{name}' cannot be loaded .*; it must be a local directory or "
    ) as caught:
        hf_model(name)
    assert "\n" not in str(caught.value)


def test_an_unknown_tiny_model_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^model\.path must be a directory .* or a shipped model \(.*\), got 'huge'$"):
        tiny_model("huge")


def test_an_unknown_dtype_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^hf_model: dtype must be 'float32' or 'bfloat16', got 'int8'$"):
        hf_model(str(tmp_path), dtype="int8")


def test_a_model_without_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name.*no chat template"):
        hf_model(str(_save(tmp_path, template="")))


@pytest.mark.parametrize("template", [False, True])
def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path, template: bool) -> None:
    """What only ``model.save_pretrained`` wrote; transformers makes an empty tokenizer of it."""
    for file in _save(tmp_path).iterdir():
        if file.name not in ("config.json", "model.safetensors") and not (template and file.suffix == ".jinja"):
            file.unlink()
    with pytest.raises(UserError, match=r"^model\.name: .* has no tokenizer: .*save_pretrained\(FOLDER\)$"):
        hf_model(str(tmp_path))


def test_a_folder_at_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _save(tmp_path)
    assert hf_model("~").name == "~"


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "../nothing", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_to_be_none(name: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.name: '{name}' cannot be loaded: there is no such folder"):
        hf_model(name)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    _save(tmp_path)
    smaller = tiny_random_model(num_layers=1)
    smaller.save_pretrained(tmp_path / "small")
    (tmp_path / "small" / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no weights for \d+ parameters"):
        hf_model(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_file_that_would_block_the_loader_is_one_sentence(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"^model\.name: .*{name} must be a regular file, got a named pipe$"):
        hf_model(str(tmp_path))


def test_a_configuration_without_end_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"^model\.name: .* cannot be loaded as a causal language model ") as caught:
        hf_model(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_one_sentence(damage: str, tmp_path: Path) -> None:
    (_save(tmp_path) / damage).write_text("{ damaged")
    with pytest.raises(UserError, match="cannot be loaded"):
        hf_model(str(tmp_path))


@pytest.mark.parametrize(("build", "setting"), [(tiny_model, "path"), (hf_model, "name")])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(build: Any, setting: str, value: float, tmp_path: Path) -> None:
    model = tiny_random_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    with pytest.raises(UserError, match=rf"^model\.{setting}: the weights of .* are not finite \(.*up_proj") as caught:
        build(str(_save(tmp_path, model)))
    assert "\n" not in str(caught.value)


def test_logits_that_overflow_are_refused(tmp_path: Path) -> None:
    model = tiny_random_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(3e38)
    with pytest.raises(UserError, match=r"gives logits that are not finite, although its weights are"):
        hf_model(str(_save(tmp_path, model)))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tokenizer"):
        hf_model(str(_save(tmp_path, tiny_random_model(vocab_size=100))))
