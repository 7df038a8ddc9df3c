"""Choices of how a model is loaded: attention, quantized weights, further arguments, and code that comes with it."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sdar.commands.export import export
from sdar.config.plugins import allowing
from sdar.errors import UserError
from sdar.learning.module import SDARModule
from sdar.policy.checkpoint import check_origin, origin
from sdar.policy.language_model import LanguageModel, hf_model, weights_hash
from sdar.policy.log_probs import score_tokens
from sdar.policy.lora import LoraSettings, adapters_off
from sdar.run.validate import compose
from toys.models import tiny_random_model, toy_tokenizer
from toys.training import PLAIN_GRPO, Memory, same_weights, toy_datamodule, toy_module, toy_trainer, weights

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'sdar[quant]'"
)
ADAPTERS = LoraSettings(rank=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, large enough that blocks of 64 weights have something to quantize."""
    path = tmp_path_factory.mktemp("model")
    toy_tokenizer().save_pretrained(path)
    tiny_random_model(hidden_size=64, context_tokens=256).save_pretrained(path)
    return path


def load(folder: Path, lora: LoraSettings | None = ADAPTERS, **choices: Any) -> LanguageModel:
    return hf_model(str(folder), lora=lora, **choices)


def scores(model: Any) -> torch.Tensor:
    ids = torch.arange(40).reshape(2, 20) * 7 % 259
    real = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        return score_tokens(model, ids, real, real & (torch.arange(20) > 0)).log_probs


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(["model=hf", "model.name=some/model", *overrides])
    return str(caught.value)


# ------------------------------------------------------------------ attention


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_that_is_asked_for_is_used(attention: Any, folder: Path) -> None:
    policy = load(folder, None, attn_implementation=attention)
    assert policy.model.config._attn_implementation == attention
    torch.testing.assert_close(scores(policy.model), scores(load(folder, None).model), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("attention", "why"),
    [
        ("flash_attention_2", "kernels take no attention mask"),
        ("flash_attention_3", "kernels take no attention mask"),
        ("flex_attention", "kernels are compiled for each shape"),
    ],
)
def test_attention_that_rollouts_cannot_use_is_refused_with_the_reason(attention: Any, why: str, folder: Path) -> None:
    with pytest.raises(UserError, match=rf"model\.attn_implementation={attention}, whose {why}.*; set it to sdpa"):
        load(folder, None, attn_implementation=attention)


def test_attention_that_the_model_does_not_have_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3ForCausalLM

    monkeypatch.setattr(Qwen3ForCausalLM, "_supports_sdpa", False)
    with pytest.raises(UserError, match=r"model\.attn_implementation=sdpa must be one that it supports, or null$"):
        load(folder, None, attn_implementation="sdpa")


@pytest.mark.parametrize("name", ["kernels-community/flash-attn2", "fast"])
def test_kernels_of_the_hub_are_no_attention(name: str) -> None:
    assert "model.attn_implementation must be 'eager' or 'sdpa' or" in refusal(f"model.attn_implementation={name}")


# ------------------------------------------------------------------ further arguments


def test_entries_of_the_configuration_may_be_changed(folder: Path) -> None:
    policy = load(folder, None, kwargs={"max_position_embeddings": 128, "local_files_only": True})
    assert policy.context_tokens == 128
    positions = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    stretched = load(folder, None, kwargs={"rope_parameters": positions})
    assert stretched.model.config.rope_parameters["factor"] == 2.0
    assert not torch.allclose(scores(stretched.model), scores(load(folder, None).model))


@pytest.mark.parametrize(
    "name",
    [
        *("trust_remote_code", "code_revision", "auto_map", "use_kernels", "weights_only", "config", "state_dict"),
        *("quantization_config", "device_map", "attn_implementation", "_attn_implementation", "dtype", "model_type"),
        "token",
    ],
)
def test_arguments_that_bring_code_or_have_a_setting_are_refused(name: str, folder: Path) -> None:
    with pytest.raises(UserError, match=rf"cannot take model\.kwargs\.{name}: it must be variant, .*config\.json"):
        load(folder, None, kwargs={name: "x"})


def test_a_misspelt_argument_is_told_with_the_nearest(folder: Path) -> None:
    with pytest.raises(UserError, match="did you mean max_position_embeddings"):
        load(folder, None, kwargs={"max_position_embedings": 128})
    with pytest.raises(UserError, match="experts_implementation='some/kernel': it must be one of eager"):
        load(folder, None, kwargs={"experts_implementation": "some/kernel"})


def test_arguments_are_plain_values() -> None:
    for value in ("{a: {_target_: sdar.objective.gate.NoGate}}", "{_target_: sdar.objective.gate.NoGate}", "3"):
        assert "model.kwargs" in refusal(f"model.kwargs={value}")


# ------------------------------------------------------------------ quantized weights


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantized_base_takes_adapters_and_computes_one_function(quantization: Any, dtype: Any, folder: Path) -> None:
    policy = load(folder, quantization=quantization, dtype=dtype)
    assert policy.quantization == quantization
    trained = {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    whole, packed = (sum(p.nbytes for p in part.model.model.layers.parameters() if not p.requires_grad)
                     for part in (load(folder, dtype=dtype), policy))  # fmt: skip
    assert packed < 0.6 * whole
    before = scores(policy.model)
    assert torch.equal(before, scores(copy.deepcopy(policy.model)))
    with adapters_off(policy.model):
        assert torch.equal(before, scores(policy.model))
    # Recomputing, learning and scoring are one function, and nothing of it changes the weights.
    policy.model.train()
    assert torch.equal(before, scores(policy.model))
    policy.model.eval()
    assert torch.equal(before, scores(policy.model))
    assert policy.content_hash == load(folder, quantization=quantization, dtype=dtype).content_hash
    assert not torch.allclose(before, scores(load(folder, dtype=dtype).model))


@needs_bitsandbytes
def test_gradients_of_8_bit_layers_are_those_of_their_dequantized_weights(folder: Path) -> None:
    layer = load(folder, None, quantization="int8").model.model.layers[0].mlp.up_proj
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plain = layer.weight.data.float() * (layer.weight.SCB / 127)[:, None]
    expected = torch.nn.functional.linear(x, plain)
    torch.testing.assert_close(layer(x), expected)
    (ours,) = torch.autograd.grad(layer(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(ours, theirs)


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_the_hash_covers_the_scales(quantization: Any, folder: Path) -> None:
    model = load(folder, None, quantization=quantization).model
    before = weights_hash(model)
    layer = model.model.layers[0].mlp.up_proj
    scale = layer.weight.SCB if quantization == "int8" else layer.weight.quant_state.offset
    scale += 1e-3
    assert weights_hash(model) != before


@needs_bitsandbytes
def test_a_run_on_a_quantized_base_resumes_and_is_exported_on_the_whole_one(folder: Path, tmp_path: Path) -> None:
    def fit(iterations: int, ckpt_path: Path | None = None) -> tuple[Any, SDARModule, Memory]:
        policy, memory = load(folder, quantization="nf4"), Memory()
        steps = {"episodes_per_step": None, "reuse_scores": False}  # one step, whose ratios are exactly 1
        module = toy_module(policy, distillation_coefficient=0.0, learning_rate=1e-2, **steps)
        trainer = toy_trainer(iterations, logger=memory)
        trainer.fit(module, datamodule=toy_datamodule(policy), ckpt_path=ckpt_path, weights_only=True)
        return trainer, module, memory

    path = tmp_path / "one.ckpt"
    fit(1)[0].save_checkpoint(path)
    assert all("lora_" in name for name in torch.load(path, weights_only=True)["state_dict"])
    trainer, whole, curve = fit(2)
    _, resumed, rest = fit(2, path)
    assert curve.steps[0]["train/approx_kl"] == curve.steps[0]["loss/kl"] == 0
    assert rest.curve()[1] == curve.curve()[1]
    assert same_weights(weights(whole), weights(resumed))
    trainer.save_checkpoint(path)
    model = {
        "_target_": "sdar.policy.language_model.hf_model",
        "name": str(folder),
        "lora": {"rank": 4},
        "quantization": "nf4",
    }
    assert export(path, tmp_path / "out", model) < 1e-4
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert getattr(written.config, "quantization_config", None) is None
    base = load(folder, None).model
    assert {p.dtype for p in written.parameters()} == {torch.float32}
    assert not torch.equal(written.model.layers[0].mlp.up_proj.weight, base.model.layers[0].mlp.up_proj.weight)
    assert torch.equal(written.model.embed_tokens.weight, base.model.embed_tokens.weight)
    assert "of the nf4 policy by" in (tmp_path / "out" / "README.md").read_text()


@needs_bitsandbytes
def test_a_model_that_is_stored_quantized_is_known_as_such(folder: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    load(folder, None, quantization="nf4").model.save_pretrained(stored)
    toy_tokenizer().save_pretrained(stored)
    policy = load(stored)
    assert policy.quantization == "nf4"
    torch.testing.assert_close(scores(policy.model), scores(load(folder, quantization="nf4").model))
    with pytest.raises(UserError, match=r"model\.quantization=int8, because it is stored as nf4; set it to null"):
        load(stored, quantization="int8")


@needs_bitsandbytes
def test_a_quantized_base_is_not_trained_itself(folder: Path) -> None:
    policy = load(folder, None, quantization="nf4")
    assert not any(parameter.requires_grad for parameter in policy.model.parameters())
    with pytest.raises(UserError, match=r"are quantized \(nf4\) and cannot be trained; set model\.lora"):
        SDARModule(policy, PLAIN_GRPO)


def test_quantization_without_adapters_is_refused_before_anything_is_loaded() -> None:
    assert refusal("model.quantization=nf4").startswith("model.quantization='nf4' needs model.lora: ")
    assert "model.quantization must be 'nf4' or 'fp4' or 'int8' or null, got 'gptq'" in refusal(
        "model.quantization=gptq"
    )


@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
def test_a_missing_package_names_the_extra(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else found("os"))
    with pytest.raises(
        UserError,
        match=rf"model\.quantization=nf4 needs {package}, which is not installed: pip install 'sdar\[quant\]'",
    ):
        load(folder, quantization="nf4")


@needs_bitsandbytes
def test_a_bitsandbytes_without_a_device_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    with pytest.raises(UserError, match=rf"on the CPU.*version {bitsandbytes.__version__} runs on cuda here"):
        load(folder, quantization="nf4")


def test_a_checkpoint_of_another_storage_is_refused_naming_both(folder: Path) -> None:
    policy = load(folder)
    record = {"sdar": origin(policy) | {"quantization": "nf4"}}
    with pytest.raises(
        UserError, match=r"quantized weights \(nf4\), but .* whole weights; model\.quantization must be"
    ):
        check_origin(record, policy)


# ------------------------------------------------------------------ code that comes with a model


@pytest.fixture
def with_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose class lies beside its weights, and leaves a trace where it is imported."""
    path = tmp_path / "with_code"
    toy_tokenizer().save_pretrained(path)
    tiny_random_model(context_tokens=256).save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    classes = {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"}
    config |= {"model_type": "theirs", "auto_map": classes, "architectures": ["TheirModel"]}
    (path / "config.json").write_text(json.dumps(config))
    (path / "theirs.py").write_text(
        "from transformers import Qwen3Config, Qwen3ForCausalLM\n"
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class TheirConfig(Qwen3Config):\n    model_type = 'theirs'\n"
        "class TheirModel(Qwen3ForCausalLM):\n    config_class = TheirConfig\n"
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return path


def test_code_of_a_model_runs_by_the_users_word_alone(with_code: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"custom code.*; with model=hf, model\.trust_remote_code=true runs it if you"):
        load(with_code, None)
    with pytest.raises(
        UserError, match=rf"trust_remote_code=true would run .*; if you trust it, add --allow {with_code}"
    ):
        load(with_code, None, trust_remote_code=True)
    with allowing(["some/other"]), pytest.raises(UserError, match="--allow"):
        load(with_code, None, trust_remote_code=True)
    with allowing([str(with_code)]), pytest.raises(UserError, match="custom code"):
        load(with_code, None)
    assert not (tmp_path / "ran").exists()
    with allowing([str(with_code)]):
        policy = load(with_code, None, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert policy.architecture == "TheirModel"


@pytest.mark.parametrize("word", ["owner/model", "owner/Model-1.5B_x.y"])
def test_a_model_of_the_hub_is_allowed_by_its_name(word: str) -> None:
    with allowing([word]):
        pass


@pytest.mark.parametrize("word", ["../x", "/no/such/folder", "a/b/c", "owner/", "/model", "a/b,os", "https://x/y"])
def test_what_names_neither_a_package_nor_a_model_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="--allow"), allowing([word]):
        raise AssertionError
