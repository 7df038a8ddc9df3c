"""Adapters of an earlier fine-tune are part of the model that is loaded, or it is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sdar.errors import UserError
from sdar.policy.language_model import hf_model, weights_hash
from sdar.policy.log_probs import score_tokens
from sdar.policy.lora import LoraSettings, adapters_off
from toys.models import tiny_random_model, toy_tokenizer

IDS = torch.arange(3, 23).reshape(2, 10)
REAL = torch.ones_like(IDS, dtype=torch.bool)


def scores(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return score_tokens(model, IDS, REAL, REAL & (torch.arange(10) > 0)).log_probs  # type: ignore[arg-type]


def save_base(folder: Path) -> Path:
    tiny_random_model().save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def save_adapters(base: Path, folder: Path, model: torch.nn.Module | None = None, seed: int = 0) -> torch.Tensor:
    """Adapters that were trained on a base; the scores of both together."""
    model = model or AutoModelForCausalLM.from_pretrained(base)
    model.name_or_path = str(base)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    adapted.save_pretrained(folder)
    return scores(adapted.base_model.model)


@pytest.mark.parametrize("beside", [False, True])
def test_adapters_are_merged_before_anything_else(beside: bool, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    folder = base if beside else tmp_path / "adapters"
    expected = save_adapters(base, folder)
    assert (scores(tiny_random_model()) - expected).abs().max() > 0.1
    policy = hf_model(str(folder))
    torch.testing.assert_close(scores(policy.model), expected, atol=1e-5, rtol=0)
    assert policy.content_hash == weights_hash(policy.model) != weights_hash(tiny_random_model())
    assert not [name for name, _ in policy.model.named_parameters() if "lora" in name]


def test_adapters_of_our_own_begin_where_the_others_ended(tmp_path: Path) -> None:
    """Fresh adapters = adapters off = the model with the adapters of the folder, as peft computes it."""
    base, folder = save_base(tmp_path / "base"), tmp_path / "adapters"
    save_adapters(base, folder)
    policy = hf_model(str(folder), lora=LoraSettings(rank=2))
    with_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    torch.testing.assert_close(scores(policy.model), scores(with_peft.base_model.model), atol=1e-5, rtol=0)
    with adapters_off(policy.model) as frozen:
        assert torch.equal(scores(frozen), scores(policy.model))


def test_adapters_on_adapters_are_all_merged(tmp_path: Path) -> None:
    base, first, second = save_base(tmp_path / "base"), tmp_path / "first", tmp_path / "second"
    save_adapters(base, first)
    merged = hf_model(str(first)).model
    expected = save_adapters(first, second, merged, seed=1)
    torch.testing.assert_close(scores(hf_model(str(second)).model), expected, atol=1e-5, rtol=0)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        hf_model(str(folder))
    message = str(caught.value)
    assert message.startswith(f"model.name: {str(folder)!r} ")
    assert "\n" not in message
    return message


def test_without_peft_the_command_to_install_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_adapters(save_base(tmp_path / "base"), tmp_path / "adapters")
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "holds adapters, which need peft" in refused(tmp_path / "adapters")


def test_adapters_without_all_their_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    save_adapters(save_base(tmp_path / "base"), folder)
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "adapter_model.safetensors")
    assert "holds adapters without weights for all their layers" in refused(folder)


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    save_adapters(save_base(tmp_path / "base"), folder)
    other = tmp_path / "other"
    tiny_random_model(hidden_size=16).save_pretrained(other)
    toy_tokenizer().save_pretrained(other)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    assert "holds adapters that cannot be merged into their model" in refused(folder)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"base_model_name_or_path": 3}'])
def test_adapters_that_name_no_model_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    assert "names no base_model_name_or_path" in refused(tmp_path)


def test_adapters_that_name_themselves_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    assert "more than 4 levels of adapters" in refused(tmp_path)
