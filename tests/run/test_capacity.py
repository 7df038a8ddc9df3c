"""Capacity on paper: golden values by hand arithmetic, the real models' sizes, and the original's seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

from sdar.policy.forward import hidden_states
from sdar.policy.shape import ModelShape
from sdar.run.capacity import fit
from sdar.run.capacity.machine import CPU, H100, Device
from sdar.run.capacity.memory import MemoryPlan, told
from sdar.run.capacity.seconds import Plan
from sdar.run.capacity.shapes import DEFAULT, PAPER_WINDOW, SHAPES, SHIPPED
from sdar.run.capacity.work import Work
from toys.training import HintTeacher, toy_module, toy_policy

SMALL = ModelShape(hidden=4, layers=1, heads=2, kv_heads=1, head_dim=2, intermediate=8, vocabulary=10)
WORK = Work(
    episodes=2,
    turns=3,
    longest_turns=4,
    opening_tokens=10,
    observation_tokens=5,
    response_tokens=2,
    longest_response=4,
)
ROUND = Device("round", 1000.0, 0.5, 100.0, 0.5, 1e9, layer_s=2.0, captured_s=0.5, link=10.0, network=1.0)


def test_a_small_shape_by_hand() -> None:
    assert SMALL.layer_products == 4 * 2 * (2 * 2 + 2 * 1) + 3 * 4 * 8 == 144
    assert SMALL.parameters == 144 + 40 + 4 + 8
    assert replace(SMALL, tied=False).parameters == SMALL.parameters + 40
    assert SMALL.cache_bytes(2) == 2 * 1 * 1 * 2 * 2
    # 10 tokens in rows of 5: 288 of products and 40 of attention each, and 80 of the head for each of 3.
    assert SMALL.forward_flops(10, 5, 3) == 10 * (2 * 144 + 2 * 2 * 2 * 5) + 3 * 80


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen2.5-0.5B", 494_032_768),
        ("Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen3-1.7B", 1_720_574_976),
        ("Qwen2.5-3B", 3_085_938_688),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-32B", 32_763_876_352),
        ("Llama-3.1-70B", 70_553_706_496),
    ],
)
def test_published_models_have_their_published_sizes(name: str, parameters: int) -> None:
    assert SHAPES[name].parameters == parameters


def test_the_shipped_model_has_its_size() -> None:
    assert SHIPPED.parameters == 712_896


@pytest.mark.parametrize("kind", [Qwen2Config, Qwen3Config])
def test_a_shape_counts_what_transformers_builds(kind: Any) -> None:
    config = kind(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        intermediate_size=100,
        vocab_size=77,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.of(config)
    assert shape is not None
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("mixed", [False, True])
def test_activations_are_those_that_torch_keeps(mixed: bool) -> None:
    config = Qwen3Config(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=384,
        vocab_size=50,
    )
    model, shape, tokens = AutoModelForCausalLM.from_config(config), ModelShape.of(config), 256
    assert shape is not None
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        hidden_states(model, torch.zeros(2, tokens // 2, dtype=torch.long), use_cache=False)
    casts = 2 * shape.layer_products if mixed else 0
    measured = (sum(storage.nbytes() for storage in kept.values()) - casts) / tokens
    assert shape.activation_bytes(2 if mixed else 4, checkpointing=False) == pytest.approx(measured, rel=0.15)


def test_work_by_hand() -> None:
    append = replace(WORK, context="append")
    assert append.prompt_tokens == WORK.prompt_tokens == 2 * (10 + 2 * 5)
    assert append.sampled_tokens == 12
    assert (append.rows, append.row_tokens, append.longest_context) == (2, 26, 10 + 3 * 7 + 4)
    assert append.played_context == 10 + 8
    assert (WORK.rows, WORK.row_tokens, WORK.longest_context) == (6, pytest.approx(52 / 6), 14)
    assert WORK.waves(1, 1) == 2
    assert WORK.waves(1, 2) == 1


def test_seconds_by_hand() -> None:
    plan = Plan(SMALL, WORK, ROUND, steps=2, environment_s=0.5, workers=2, reused=False)
    seconds = plan.seconds()
    row = SMALL.forward_flops(52, 52 / 6, 12)
    assert seconds["old log-probs"] == seconds["reference"] == pytest.approx(row / 500)
    assert seconds["update"] == pytest.approx(3 * row / 500)
    assert seconds["teacher"] == seconds["exchange"] == seconds["weights to the players"] == 0
    assert seconds["environment"] == 6 * 0.5 / 2
    assert seconds["optimizer"] == pytest.approx(2 * 28 * SMALL.parameters / 100)
    # 16 steps of one layer; 1.5 rows of 2 * 3/4 live episodes read weights and cache, and are sampled from.
    read = (2 * (144 + 40) + 8 * (40 / 6 + 1) * 1.5) / 50
    computed = 1.5 * SMALL.forward_flops(1, 2 * (40 / 6 + 1), 1) / 500
    assert seconds["decode"] == pytest.approx(16 * (max(read, computed) + 2.0 + 60 * 10 * 1.5 / 100))
    captured = replace(plan, engine="own, captured").seconds()
    assert seconds["decode"] - captured["decode"] == pytest.approx(16 * 1.5)
    assert plan.total() == pytest.approx(sum(seconds.values()))


def test_a_block_that_rows_share_is_attended_to_and_not_computed() -> None:
    work = replace(WORK, context="append", teacher_tokens=14)
    whole = Plan(SMALL, work, ROUND).seconds()["teacher"]
    shared = Plan(SMALL, work, ROUND, shared_blocks=True).seconds()["teacher"]
    # Two rows of 26 + 14 tokens; 12 are scored. Attention: 8 per token of the row, over half of it on average.
    assert whole == pytest.approx((80 * (288 + 8 * 40) + 80 * 12) / 500)
    assert shared == pytest.approx((52 * (288 + 8 * 54) + 80 * 12) / 500)


def test_more_cards_share_the_work_and_talk() -> None:
    one = Plan(SMALL, WORK, ROUND, micro_batch_tokens=13)
    ddp, shared = (replace(one, strategy=strategy, cards=2) for strategy in ("ddp", "fsdp2"))
    assert ddp.seconds()["update"] == one.seconds()["update"] / 2
    assert ddp.seconds()["exchange"] == pytest.approx(8 * SMALL.parameters * 0.5 / 10)
    # Two micro-batches of 13 of 26 tokens fetch weights twice (2 bytes) and reduce gradients (4 bytes).
    assert shared.seconds()["exchange"] == pytest.approx(2 * 8 * SMALL.parameters * 0.5 / 10)
    assert shared.seconds()["weights to the players"] == pytest.approx(2 * SMALL.parameters / 10)
    assert replace(ddp, nodes=2).seconds()["exchange"] == pytest.approx(8 * SMALL.parameters * 0.75 / 1)


def memory(**changes: Any) -> MemoryPlan:
    shape = SHAPES["Qwen2.5-3B"]
    plan = MemoryPlan(
        shape=shape,
        parameters=shape.parameters,
        trained=shape.parameters,
        copies=1,
        strategy="one",
        processes=1,
        weight_bytes=4,
        trained_bytes=4,
        compute_bytes=2,
        cast=shape.parameters,
        moment_bytes=8.0,
        rows=128,
        row_tokens=992,
        prompt_tokens=480,
        prefill_tokens=16384,
        micro_batch_tokens=16384,
        checkpointing=True,
        card_bytes=80e9,
    )
    return replace(plan, **changes)


def test_memory_of_the_papers_model_by_hand() -> None:
    kept = memory().kept()
    assert kept["weights"] == kept["copies"] == 4 * 3_085_938_688
    assert kept["moments"] == 8 * 3_085_938_688
    # 2 x 36 layers x 2 heads x 128 numbers of 2 bytes are 36,864 bytes a token.
    assert memory().played()["key/value cache"] == 36_864 * 128 * 992
    # Two bytes of 4 x 2,048 + 2 x 11,008 numbers a token: of the prompts that are fed at once.
    assert memory().played()["prompts"] == 2 * (4 * 2048 + 2 * 11_008) * 16_384
    assert memory(prefill_tokens=100).played()["prompts"] == 2 * (4 * 2048 + 2 * 11_008) * 480
    assert memory(rows=3).played()["prompts"] == 2 * (4 * 2048 + 2 * 11_008) * 3 * 480
    assert memory().learned()["gradients"] == 4 * 3_085_938_688
    four = memory(strategy="fsdp2", processes=4)
    assert four.kept()["moments"] == 2 * 3_085_938_688
    assert four.played()["weights to compute with"] == 2 * 3_085_938_688
    assert memory(compute_bytes=4, cast=0).played()["weights to compute with"] == 0
    engine = memory(engine_bytes=32e9)
    assert engine.peak("play") - memory().peak("play") == 32e9
    assert engine.peak("update") == memory().peak("update")
    assert replace(engine, engine_stays=True).peak("update") - memory().peak("update") == 32e9
    said = told(replace(engine, rows=0), 40e9, "a card")
    assert said is not None
    assert "rollout.vllm.memory_fraction" in said
    taught = memory(whole_teacher=True)
    assert taught.learned() == memory().learned()
    sharded = replace(taught, strategy="fsdp2", processes=4)
    assert sharded.learned()["whole teacher"] == 2 * 3_085_938_688
    assert memory().learned()["logits"] == 80e9 / 32
    assert memory(card_bytes=0.0).learned()["logits"] == 4 * 40 * 2**20
    assert memory(trained=1000).stepped() == {"gradients": 4000, "temporaries": 4000}


def test_a_run_that_does_not_fit_is_told_in_one_sentence() -> None:
    assert told(memory(), 141e9, "a card") is None
    said = told(memory(), 40e9, "a card")
    assert said is not None
    assert "a card has 40.0 GB" in said
    assert "\n" not in said
    cache = told(memory(rows=2000), 80e9, "a card")
    assert cache is not None
    assert "rollout.max_concurrent_episodes" in cache


def test_a_module_states_what_it_keeps() -> None:
    config = {"trainer": {"devices": 1, "accelerator": "cpu", "precision": "32-true"}}
    device = torch.device("cpu")
    module = toy_module(toy_policy(), HintTeacher(source="ema"), kl_coefficient=0.1)
    plan = fit.memory_plan(module, config, device, max_turns=3, panel_size=4)
    assert plan is not None
    count = sum(weight.numel() for weight in module.model.parameters())
    assert (plan.parameters, plan.trained, plan.copies) == (count, count, 2)
    assert (plan.weight_bytes, plan.compute_bytes, plan.strategy, plan.rows) == (4, 4, "one", 12)
    mixed = {"trainer": {**config["trainer"], "precision": "bf16-mixed"}}
    halved = fit.memory_plan(module, mixed, device, max_turns=3, panel_size=4)
    assert halved is not None
    assert (halved.compute_bytes, halved.cast) == (2, count)


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["whole", "adapters"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "bf16"])
def test_weights_gradients_and_moments_have_the_bytes_that_are_reckoned(
    precision: str, dtype: torch.dtype, lora: dict[str, int] | None
) -> None:
    module = toy_module(toy_policy(dtype=dtype, lora=lora), HintTeacher(), kl_coefficient=0.0)
    config = {"trainer": {"devices": 1, "accelerator": "cpu", "precision": precision}}
    plan = fit.memory_plan(module, config, torch.device("cpu"), max_turns=3, panel_size=4)
    assert plan is not None
    if precision == "bf16-true":
        module.to(torch.bfloat16)  # as Lightning does
    weights = list(module.model.parameters())
    assert plan.kept()["weights"] == pytest.approx(sum(weight.nbytes for weight in weights))
    cast = sum(weight.numel() for weight in weights if weight.dtype is not torch.bfloat16)
    assert plan.played()["weights to compute with"] == (2 * cast if precision in ("bf16-mixed", "bf16") else 0)
    trained = [weight for weight in weights if weight.requires_grad]
    for weight in trained:
        weight.grad = torch.ones_like(weight)
    assert plan.learned()["gradients"] == pytest.approx(sum(weight.nbytes for weight in trained))
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim() > 0]
    assert plan.kept()["moments"] == pytest.approx(sum(value.nbytes for value in moments))


def test_a_run_is_remarked_on_where_its_device_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"trainer": {"devices": 1, "accelerator": "cpu"}}
    module, device = toy_module(toy_policy(), HintTeacher()), torch.device("cpu")
    assert fit.remark(module, config, device, max_turns=3, panel_size=4) is None
    monkeypatch.setattr(fit, "device_memory", lambda device, sharers: 1e6)
    said = fit.remark(module, config, device, max_turns=3, panel_size=4)
    assert said is not None
    assert said.startswith("by arithmetic this run will not fit: this machine has 0.0 GB")


def test_the_default_runs_update_and_teacher_follow_from_its_reference() -> None:
    """Of an iteration on a CPU (docs/results.md, what the teacher costs), the reference's 0.88 s are solved."""
    plan = Plan(SHIPPED, DEFAULT, CPU, compute_bytes=4, reused=True, shared_blocks=True)
    seconds = plan.seconds()
    assert seconds["reference"] == pytest.approx(0.88, rel=0.05)
    assert seconds["teacher"] == pytest.approx(1.97 - 0.88, rel=0.1)
    assert seconds["update"] == pytest.approx(3.00, rel=0.15)


def test_the_originals_update_and_reference_follow_from_its_scoring() -> None:
    """The share of the peak is solved from its 17.6 s of old log-probs; update and reference are not."""
    plan = Plan(
        SHAPES["Qwen2.5-3B"], PAPER_WINDOW, H100, "fsdp2", "vllm colocated", cards=4, split=2, checkpointing=True
    )
    seconds = plan.seconds()
    assert seconds["old log-probs"] == pytest.approx(17.6, rel=0.1)
    assert seconds["update"] == pytest.approx(75, rel=0.15)
    assert seconds["reference"] == pytest.approx(20, rel=0.2)
    assert seconds["teacher"] == pytest.approx(44.6, rel=0.1)
    assert seconds["decode"] + seconds["prompts"] == pytest.approx(202, rel=0.15)


@pytest.mark.e2e
def test_a_run_warns_before_it_begins_and_goes_on(tmp_path: Path) -> None:
    small = "from sdar.run.capacity import fit; fit.device_memory = lambda *_: 1e6\n"
    small += "from sdar.commands.train import cli; cli()"
    settings = ["experiment=smoke", "environment=arithmetic", "logger=none", "evaluation.panel_size=2"]
    done = subprocess.run(
        [sys.executable, "-c", small, *settings, "trainer.max_epochs=1", f"run_dir={tmp_path / 'run'}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("by arithmetic this run will not fit: this machine has 0.0 GB") == 1
    assert "by arithmetic" in (tmp_path / "run" / "run.log").read_text()
