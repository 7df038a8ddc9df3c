"""Promises of a training run, on the toy environment."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision

from sdar.errors import UserError
from sdar.policy.checkpoint import load_student
from sdar.policy.log_probs import score_tokens
from toys.training import (
    HintTeacher,
    LettersEnvironment,
    learned,
    models_alive,
    same_weights,
    toy_datamodule,
    toy_module,
    toy_policy,
    train,
    weights,
)


def run(
    iterations=2,
    teacher=None,
    callbacks=(),
    data=None,
    ckpt_path=None,
    trainer=None,
    policy=None,
    context="append",
    **settings,
):
    policy = policy or toy_policy()
    module = toy_module(policy, teacher, context=context, **settings)
    datamodule = toy_datamodule(policy, context=context, **(data or {}))
    memory = train(module, datamodule, iterations, ckpt_path, callbacks=callbacks, **(trainer or {}))
    return module, memory.curve()


both_contexts = pytest.mark.parametrize("context", ["append", "window"])


def last_checkpoint(folder):
    return ModelCheckpoint(dirpath=folder, save_last=True, save_top_k=0, save_on_train_epoch_end=True)


TAGS = """
    curriculum/strongly_gated_fraction curriculum/endorsed_fraction curriculum/rejected_fraction
    curriculum/neutral_fraction curriculum/gate_mean curriculum/gap_mean curriculum/gap_std
    curriculum/teacher_context_tokens
    rollout/success_rate rollout/return_mean rollout/turns_mean rollout/valid_action_rate
    rollout/equal_group_fraction rollout/response_tokens_mean rollout/response_truncated_fraction
    rollout/context_tokens_max rollout/history_dropped_turns rollout/entropy rollout/end/success rollout/end/turn_limit
    loss/total loss/policy loss/distillation loss/kl loss/entropy
    train/grad_norm train/skipped_steps train/clip_fraction train/approx_kl objective/gate_mean objective/gap_mean
    time/generate_s time/environment_s time/score_s time/update_s throughput/tokens_per_s
"""
"""The contract: users build dashboards on these."""

GRPO = {"distillation_coefficient": 0.0}


@functools.cache
def grpo(context):
    """Two iterations without a teacher, for all who compare with them."""
    return run(context=context, **GRPO)


@functools.cache
def taught(context):
    """Two iterations with a teacher."""
    return run(teacher=HintTeacher(), context=context)


@both_contexts
def test_coefficient_zero_is_bit_equal_to_grpo_and_logs_the_curriculum(context):
    plain, plain_curve = grpo(context)
    scored, scored_curve = run(teacher=HintTeacher(), context=context, **GRPO)
    assert same_weights(weights(plain), weights(scored))
    assert not same_weights(weights(plain), weights(toy_module(toy_policy(), **GRPO)))
    for step, figures in plain_curve.items():
        assert {name: scored_curve[step][name] for name in learned(figures)} == learned(figures)
        assert "curriculum/gap_mean" not in figures
        assert scored_curve[step]["curriculum/gap_std"] > 0
        assert math.isfinite(scored_curve[step]["loss/distillation"])


def test_distillation_changes_the_weights():
    sdar, _ = run(teacher=HintTeacher(), distillation_coefficient=0.1)
    assert not same_weights(weights(grpo("append")[0]), weights(sdar))


@both_contexts
def test_same_seed_gives_the_same_curve_twice(context):
    first, first_curve = taught(context)
    second, second_curve = run(teacher=HintTeacher(), context=context)
    assert same_weights(weights(first), weights(second))
    assert first_curve == second_curve
    assert list(first_curve) == [0, 1]


def test_another_seed_gives_another_curve():
    assert grpo("append")[1] != run(data={"seed": 2}, **GRPO)[1]


@both_contexts
def test_a_resumed_run_has_the_curve_of_the_run_that_was_not_stopped(tmp_path, context):
    settings = {"teacher": HintTeacher(), "warmup_steps": 5, "context": context}
    whole, whole_curve = run(iterations=3, **settings)
    saving = {"enable_checkpointing": True}
    _, first = run(iterations=1, callbacks=[last_checkpoint(tmp_path)], trainer=saving, **settings)
    resumed, second = run(
        iterations=3,
        callbacks=[last_checkpoint(tmp_path)],
        trainer=saving,
        ckpt_path=str(tmp_path / "last.ckpt"),
        **settings,
    )
    assert list(second) == [1, 2]
    assert first | second == whole_curve
    assert same_weights(weights(whole), weights(resumed))


def test_frozen_copies_stay_out_of_the_checkpoint_which_loads_weights_only(tmp_path):
    module, _ = run(iterations=1, callbacks=[last_checkpoint(tmp_path)], trainer={"enable_checkpointing": True}, **GRPO)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"model.{name}" for name in module.model.state_dict()}
    assert checkpoint["sdar"]["initial_weights"] == "weights-0"
    assert "hyper_parameters" not in checkpoint
    fresh = toy_module(toy_policy(), **GRPO)
    load_student(fresh, fresh.policy, str(tmp_path / "last.ckpt"))
    assert same_weights(weights(fresh), weights(module))


def test_a_checkpoint_of_other_initial_weights_is_refused(tmp_path):
    saving = {"enable_checkpointing": True}
    run(iterations=1, callbacks=[last_checkpoint(tmp_path)], trainer=saving, **GRPO)
    path = str(tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"weights-0.*weights-1"):
        run(iterations=2, policy=toy_policy(seed=1), ckpt_path=path, **GRPO)
    module = toy_module(toy_policy(seed=1), **GRPO)
    with pytest.raises(UserError, match=r"weights-0.*weights-1"):
        load_student(module, module.policy, path)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "no.ckpt").write_text("no")
    module = toy_module(toy_policy(), **GRPO)
    with pytest.raises(UserError, match=r"no\.ckpt"):
        load_student(module, module.policy, tmp_path / "no.ckpt")


@both_contexts
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_the_ratio_of_the_first_step_is_exactly_one(precision, context):
    """Every row is scored in the same micro-batch before and during the update, and by the reference."""
    settings = {"trainer": {"precision": precision}, "context": context}
    _, curve = run(
        iterations=1, episodes_per_step=None, reuse_scores=False, max_tokens_per_micro_batch=150, **settings, **GRPO
    )
    assert curve[0]["train/approx_kl"] == 0
    assert curve[0]["train/clip_fraction"] == 0
    assert curve[0]["loss/kl"] == 0


def test_an_update_makes_tokens_with_positive_advantage_likelier():
    module, _ = run(iterations=1, episodes_per_step=None, learning_rate=1e-3, **GRPO)
    batch = module.report.prepared.batch
    with torch.no_grad():
        now = score_tokens(module.model, batch.ids, batch.attention_mask, batch.response_mask).log_probs
    assert float((batch.advantage * (now - batch.old_log_probs)).sum()) > 0


def test_later_steps_leave_the_old_policy():
    _, curve = run(iterations=1, **GRPO)
    assert curve[0]["train/approx_kl"] > 0


@functools.cache
def uncut(context):
    """An iteration whose micro-batches are whole steps."""
    return run(iterations=1, max_tokens_per_micro_batch=100_000, teacher=HintTeacher(), context=context)


@both_contexts
@pytest.mark.parametrize("limit", [10, 150])  # 10: less than any row
def test_the_cut_into_micro_batches_does_not_change_the_update(context, limit, caplog):
    first, _ = run(iterations=1, max_tokens_per_micro_batch=limit, teacher=HintTeacher(), context=context)
    assert ("optimizer.max_tokens_per_micro_batch=10: " in caplog.text) == (limit == 10)
    expected = weights(uncut(context)[0])
    for name, tensor in weights(first).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=2e-4)


def test_an_empty_privileged_block_has_a_gap_of_exactly_zero():
    _, curve = run(iterations=2, teacher=HintTeacher(""), max_tokens_per_micro_batch=150)
    for figures in curve.values():
        assert figures["curriculum/gap_mean"] == figures["curriculum/gap_std"] == 0
        assert figures["curriculum/neutral_fraction"] == 1
        assert figures["curriculum/gate_mean"] == 0.5
        assert figures["curriculum/teacher_context_tokens"] == 0


def test_without_kl_there_is_no_reference():
    policy = toy_policy()
    before = models_alive()
    module = toy_module(policy, kl_coefficient=0.0, **GRPO)
    assert models_alive() == before
    with module.reference() as reference:
        assert reference is None
    del module
    with_reference = toy_module(policy, **GRPO)
    assert models_alive() == before + 1
    with with_reference.reference() as reference:
        assert reference is not policy.model
    _, curve = run(iterations=1, kl_coefficient=0.0, **GRPO)
    assert "loss/kl" not in curve[0]


def test_the_reference_stays_at_the_initial_weights():
    module, curve = grpo("append")
    initial = toy_policy().model.state_dict()
    with module.reference() as reference:
        assert all(torch.equal(tensor, initial[name]) for name, tensor in reference.state_dict().items())
    assert curve[1]["loss/kl"] > 0


def test_episodes_ended_by_an_error_are_counted_and_teach_nothing():
    broken = LettersEnvironment(tasks=4, broken=True)
    _, curve = run(iterations=2, data={"environment": broken}, **GRPO)
    for figures in curve.values():
        assert figures["rollout/end/error_environment"] == 0.25
        assert figures["rollout/turns_mean"] >= 1
    ends = [value for name, value in curve[0].items() if name.startswith("rollout/end/")]
    assert math.fsum(ends) == pytest.approx(1)


@both_contexts
def test_an_iteration_without_any_usable_episode_leaves_the_weights_alone(context):
    broken = LettersEnvironment(tasks=1, broken=True)
    data = {"environment": broken, "tasks": 1}
    module, curve = run(iterations=1, data=data, teacher=HintTeacher(), context=context)
    assert same_weights(weights(module), weights(toy_module(toy_policy(), **GRPO)))
    assert "rollout/success_rate" not in curve[0]
    assert curve[0]["rollout/end/error_environment"] == 1


def test_the_learning_rate_warms_up_and_stays():
    _, curve = run(iterations=3, warmup_steps=3, learning_rate=1e-3, **GRPO)
    assert [figures["train/learning_rate"] for figures in curve.values()] == pytest.approx([5e-4, 1e-3, 1e-3])


def test_every_tag_of_the_contract_is_logged():
    policy = toy_policy()
    memory = train(toy_module(policy, HintTeacher()), toy_datamodule(policy), 1)
    assert set(TAGS.split()) <= set(memory.steps[0])
    assert all(math.isfinite(value) for value in memory.steps[0].values())


def test_autocast_trains_on_the_weights_of_each_step():
    """Casts of weights made without gradient, or before the last step, must not be used again."""
    settings = {"teacher": HintTeacher(), "learning_rate": 1e-2, "episodes_per_step": 3}
    module, curve = run(iterations=2, trainer={"precision": "bf16-mixed"}, **settings)
    assert curve[0]["train/grad_norm"] > 0
    assert curve[0]["train/approx_kl"] > 0
    initial = weights(toy_module(toy_policy(), **GRPO))
    assert all(not torch.equal(tensor, initial[name]) for name, tensor in weights(module).items())
    assert all(tensor.dtype == torch.float32 for tensor in weights(module).values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be a number >= 1e-12 and <= 1, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number >= 1e-12 and <= 1, got nan"),
        ({"temperature": 0.0}, "temperature must be > 0, got 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be a number >= 1e-09 or null, got -1.0"),
        ({"warmup_steps": -1}, "warmup_steps must be a whole number >= 0, got -1"),
        ({"distillation_coefficient": 0.1}, "needs a scored teacher, but algorithm.score_teacher=false"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        toy_module(toy_policy(), **(GRPO | settings))


@pytest.mark.parametrize("plugin", [HalfPrecision("16-true"), MixedPrecision("16-mixed", "cpu")])
def test_half_precision_without_the_range_of_bfloat16_is_refused(plugin):
    policy = toy_policy()
    with pytest.raises(UserError, match=rf"trainer\.precision must be .*, got '{plugin.precision}'"):
        train(toy_module(policy, **GRPO), toy_datamodule(policy), 1, plugins=[plugin])
