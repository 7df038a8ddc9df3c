"""Rollouts by vLLM: token ids in and out, the policy's weights at every collection, and what its log-probs are for."""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdar.errors import RunFailed, UserError
from sdar.objective.shaping import RLSD
from sdar.policy.dropout import update_mode
from sdar.policy.language_model import LanguageModel
from sdar.policy.lora import merge_adapters
from sdar.policy.published_weights import published_weights
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import generators
from sdar.rollout.vllm.engine import Engine
from sdar.rollout.vllm.settings import VllmSettings
from toys.conversations import prompts_of
from toys.fake_vllm import install
from toys.families import BY_NAME as FAMILIES
from toys.training import (
    HintTeacher,
    LettersEnvironment,
    toy_datamodule,
    toy_module,
    toy_policy,
    toy_rollout,
    train,
)


def run(policy: LanguageModel, *, iterations: int = 2, vllm: VllmSettings | None = None, **settings: Any) -> Any:
    """Module and curve of a run whose rollouts are vLLM's."""
    teacher = settings.pop("teacher", None)
    settings |= {} if teacher is not None else {"distillation_coefficient": 0.0}
    module = toy_module(policy, teacher, episodes_per_step=None, **settings)
    module.rollout = replace(module.rollout, backend="vllm", vllm=vllm or VllmSettings())
    data = toy_datamodule(policy, context=settings.get("context", "append"))
    data.collector.settings = module.rollout
    data.collector.generator_factory = generators(module.rollout)
    return module, train(module, data, iterations).curve()


@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_run_learns_and_its_sampler_has_the_weights_of_every_iteration(context, lora, monkeypatch) -> None:
    engine = install(monkeypatch)
    policy = toy_policy(lora=lora)
    before = [parameter.detach().clone() for parameter in policy.model.parameters()]
    _, curve = run(policy, context=context)
    (made,) = engine.made
    assert made.pushes == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    for figures in curve.values():
        # What is left is the rounding of adapters that are merged.
        assert 0 <= figures["rollout/sampler_mismatch"] < 1e-10


def test_what_it_is_asked_are_the_very_ids_of_the_conversation(monkeypatch) -> None:
    engine = install(monkeypatch)
    policy = toy_policy()
    environment, rollout = LettersEnvironment(), toy_rollout(backend="vllm")
    collector = Collector(policy, environment, rollout, generator_factory=generators(rollout))
    task = environment.tasks("train")[0]
    (episode,) = collector.collect([EpisodeRequest(task, 0)], seed=1, key=("test",)).episodes
    for turn in episode.turns:
        assert turn.sampler_log_probs is not None
        assert len(turn.sampler_log_probs) == len(turn.response_ids)
    assert len(episode.turns) > 1
    assert engine.made[0].asked == prompts_of(episode)
    again = collector.collect([EpisodeRequest(task, 0)], seed=1, key=("test",)).episodes[0]
    assert [turn.response_ids for turn in again.turns] == [turn.response_ids for turn in episode.turns]


@pytest.mark.parametrize("cap", [1.2, None])
def test_advantages_are_weighed_by_the_ratio_up_to_the_cap(cap, monkeypatch) -> None:
    install(monkeypatch, noise=0.3)
    settings = VllmSettings(importance_cap=cap)
    module, curve = run(toy_policy(), iterations=1, vllm=settings, teacher=HintTeacher())
    prepared = module.report.prepared
    batch = prepared.batch
    mask = batch.response_mask
    ratio = (batch.old_log_probs - batch.sampler_log_probs).exp()[mask]
    rows = zip(_turn_advantages(prepared), _turns(batch), strict=True)
    plain = torch.tensor([advantages[turn] for advantages, turns in rows for turn in turns])
    weights = torch.ones_like(ratio) if cap is None else ratio.clamp(max=cap)
    assert float(ratio.std()) > 0.05
    assert torch.allclose(batch.advantage[mask], plain * weights, rtol=1e-5)
    difference = ratio.log()
    k3 = float((difference.exp() - difference - 1).mean())
    assert curve[0]["rollout/sampler_mismatch"] == pytest.approx(k3, rel=1e-4)


def test_factors_of_a_shaping_are_without_these_weights(monkeypatch) -> None:
    install(monkeypatch, noise=0.3)
    _, curve = run(toy_policy(), iterations=1, teacher=HintTeacher(), shaping=RLSD(weight=0.5, clip=0.0))
    assert curve[0]["objective/advantage_factor_mean"] == pytest.approx(1.0, abs=1e-6)
    assert curve[0]["objective/advantage_factor_std"] == pytest.approx(0.0, abs=1e-3)


def _turn_advantages(prepared: Any) -> list[list[float]]:
    return [prepared.advantages[episode] for episode in prepared.batch.episode_index.tolist()]


def _turns(batch: Any) -> list[list[int]]:
    return [turns[mask].tolist() for turns, mask in zip(batch.turn_index, batch.response_mask, strict=True)]


def test_the_policys_own_sampler_has_no_such_figure() -> None:
    policy = toy_policy()
    curve = train(toy_module(policy, HintTeacher()), toy_datamodule(policy), 1).curve()
    assert "rollout/sampler_mismatch" not in curve[0]


def test_weights_that_do_not_arrive_end_the_run(monkeypatch) -> None:
    install(monkeypatch, stale=True)
    with pytest.raises(RunFailed, match=r"differ from the policy's by .* rollout\.vllm\.max_mismatch=0\.0001"):
        run(toy_policy(), iterations=3, vllm=VllmSettings(max_mismatch=1e-4), learning_rate=0.05)


def test_a_missing_vllm_is_told_before_anything_is_built(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"rollout\.backend=vllm needs vLLM.*pip install 'sdar\[vllm\]'"):
        generators(toy_rollout(backend="vllm"))


def test_models_that_it_cannot_take_are_refused(monkeypatch) -> None:
    install(monkeypatch)
    with pytest.raises(UserError, match=r"takes no quantized model, got nf4"):
        Engine(replace(toy_policy(), quantization="nf4"), VllmSettings(), 4)
    broken = replace(toy_policy(), name="odd")
    monkeypatch.setattr(sys.modules["vllm"], "LLM", _refusing)
    with pytest.raises(UserError, match=r"cannot play the model 'odd' \(.*no such architecture"):
        Engine(broken, VllmSettings(), 4)


def _refusing(**_: Any) -> SimpleNamespace:
    raise ValueError("no such architecture")


def _short_of_memory(**_: Any) -> SimpleNamespace:
    raise ValueError("No available memory for the cache blocks.")


def test_too_little_memory_names_its_setting(monkeypatch) -> None:
    install(monkeypatch)
    monkeypatch.setattr(sys.modules["vllm"], "LLM", _short_of_memory)
    with pytest.raises(UserError, match=r"change rollout\.vllm\.cpu_cache_gb"):
        Engine(toy_policy(), VllmSettings(), 4)


@pytest.mark.parametrize("size", [1, 3])
def test_the_cache_of_a_cpu_is_the_settings_whatever_the_shell_says(size: int, monkeypatch) -> None:
    engine = install(monkeypatch)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    Engine(toy_policy(), VllmSettings(cpu_cache_gb=size), 4)
    assert engine.made[0].found["VLLM_CPU_KVCACHE_SPACE"] == str(size)
    with pytest.raises(UserError, match=r"cpu_cache_gb must be"):
        VllmSettings(cpu_cache_gb=0.5)


def test_the_dropout_of_adapters_does_not_act_where_weights_are_compared(monkeypatch) -> None:
    install(monkeypatch)
    policy = toy_policy(lora={"rank": 2, "dropout": 0.9})
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if parameter.requires_grad and "lora_B" in name:
                parameter.normal_()
    update_mode(policy.model)  # as the last iteration left it
    engine = Engine(policy, VllmSettings(max_mismatch=1e-4), 4)
    before = torch.random.get_rng_state()
    engine.take_weights(policy)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_without_adapters_need_no_peft(monkeypatch) -> None:
    expected = dict(published_weights(toy_policy().model))
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_WithoutPeft(), *sys.meta_path])
    published = dict(published_weights(toy_policy().model))
    assert all(torch.equal(published[name], value) for name, value in expected.items())


class _WithoutPeft:
    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] == "peft":
            raise ModuleNotFoundError(name)


def test_a_rank_without_an_episode_hands_over_its_share_of_the_weights(monkeypatch) -> None:
    engine = install(monkeypatch)
    policy, rollout = toy_policy(), toy_rollout(backend="vllm")
    collector = Collector(policy, LettersEnvironment(), rollout, generator_factory=generators(rollout))
    assert collector.collect([], seed=1, key=("test",)).episodes == []
    assert engine.made[0].pushes == 1


def test_the_engine_has_the_runs_limits_and_the_configuration_alone(monkeypatch) -> None:
    engine = install(monkeypatch)
    before = torch.random.get_rng_state()
    Engine(toy_policy(), VllmSettings(memory_fraction=0.25), 7)
    assert torch.equal(torch.random.get_rng_state(), before)
    settings = engine.made[0].settings
    assert settings["max_num_seqs"] == 7
    assert settings["max_model_len"] == 256
    assert settings["gpu_memory_utilization"] == 0.25
    assert settings["dtype"] == "float32"
    assert settings["load_format"] == "dummy"
    assert settings["logprobs_mode"] == "processed_logprobs"


def test_every_rank_of_a_run_has_an_engine_of_its_own(monkeypatch, tmp_path: Path) -> None:
    engine = install(monkeypatch)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        Engine(toy_policy(), VllmSettings(), 4)
    finally:
        torch.distributed.destroy_process_group()
    (made,) = engine.made
    assert made.settings["distributed_executor_backend"] == "external_launcher"
    assert {name: made.found.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")} == {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"
    }  # fmt: skip
    assert "RANK" not in os.environ


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_published_weights_are_those_of_a_saved_model_with_its_adapters_merged(lora, tmp_path: Path) -> None:
    policy = toy_policy(lora=lora)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.01)
    kept = copy.deepcopy(policy.model.state_dict())
    published = dict(published_weights(policy.model))
    assert all(torch.equal(kept[name], value) for name, value in policy.model.state_dict().items())
    merged = copy.deepcopy(policy.model)
    merge_adapters(merged)
    expected = merged.state_dict()
    assert list(published) == list(expected)
    assert all(torch.equal(published[name], expected[name]) for name in expected)


def test_experts_are_published_as_a_saved_model_has_them(tmp_path: Path) -> None:
    model = FAMILIES["qwen3_moe"].model()
    published = dict(published_weights(model))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert published.keys() >= saved.keys()
    assert saved.keys() - model.state_dict().keys()  # transformers has them in other parts
    assert all(torch.equal(published[name], value) for name, value in saved.items())
