"""Every method of ``configs/algorithm`` in a toy run: it learns, and switched off it is GRPO."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from sdar.errors import UserError
from sdar.objective.estimator import GroupAdvantage, ReferenceCodeAdvantage
from sdar.objective.gigpo import StepGroupAdvantage
from sdar.objective.objective import ConstantLength
from sdar.objective.shaping import RLSD
from sdar.teacher.hindsight import HindsightTeacher, RuleAnalyzer
from toys.methods import METHODS, TRAINED, method_run, method_settings
from toys.training import HintTeacher, learned, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

both_contexts = pytest.mark.parametrize("context", ["append", "window"])

OFF = {
    "gigpo": ["algorithm.advantage.step_weight=0", "algorithm.advantage.mode=mean_std_norm"],
    "rlsd": ["algorithm.shaping.weight=0"],
    "agent_opsd": ["algorithm.shaping.weight=0"],
    "skill_sd": ["algorithm.objective.distillation_coefficient=0"],
    "sdar": ["algorithm.objective.distillation_coefficient=0"],
    "sdar_ema": ["algorithm.objective.distillation_coefficient=0"],
    "grpo_opsd": ["algorithm.objective.distillation_coefficient=0"],
    "grpo_opsd_initial": ["algorithm.objective.distillation_coefficient=0"],
    "grpo_opsd_release": ["algorithm.objective.distillation_coefficient=0"],
}
"""What turns a method off."""


def run(method, *overrides, iterations=2, context="append", **settings):
    module, data = method_run(method, *overrides, context=context, **settings)
    memory = train(module, data, iterations)
    return module, memory.curve()


@functools.cache
def grpo(context, iterations):
    return run("grpo", context=context, iterations=iterations)


@pytest.mark.e2e
@both_contexts
@pytest.mark.parametrize("method", TRAINED)
def test_every_method_trains_three_iterations(method, context):
    module, curve = run(method, iterations=3, context=context)
    assert list(curve) == [0, 1, 2]
    assert all(math.isfinite(value) for figures in curve.values() for value in figures.values())
    if method != "grpo":
        assert not same_weights(weights(module), weights(grpo(context, 3)[0]))


@both_contexts
@pytest.mark.parametrize("method", OFF)
def test_a_method_that_is_switched_off_is_bit_equal_to_grpo(method, context):
    module, curve = run(method, *OFF[method], context=context)
    assert same_weights(weights(module), weights(grpo(context, 2)[0]))
    for step, figures in grpo(context, 2)[1].items():
        assert {name: curve[step][name] for name in learned(figures)} == learned(figures)


@pytest.mark.parametrize("method", ["rlsd", "skill_sd"])
def test_a_warm_down_reaches_zero_on_the_stated_iteration(method):
    name = "objective/shaping_weight" if method == "rlsd" else "objective/distillation_coefficient"
    down = ["schedule=warm_down", "schedule.coefficient.zero_at=2"]
    larger = [] if method == "rlsd" else ["algorithm.objective.distillation_coefficient=0.5"]
    ended, curve = run(method, *down, *larger, iterations=3)
    assert [figures[name] for figures in curve.values()] == [0.5, 0.25, 0.0]
    # In the last iteration nothing is shaped and no term but GRPO's is left.
    assert ended.report.prepared.unshaped is None
    assert curve[2]["loss/total"] == pytest.approx(
        curve[2]["loss/policy"] + 0.01 * curve[2]["loss/kl"] + 0.001 * curve[2]["loss/entropy"], abs=1e-6
    )


@pytest.mark.parametrize("method", ["rlsd", "skill_sd"])
def test_from_the_stated_iteration_on_a_warm_down_is_grpo(method, monkeypatch):
    """With the end at the first iteration there is no other."""
    monkeypatch.setattr("sdar.objective.schedule.WarmDown.factor", lambda self, iteration: 0.0)
    module, _ = run(method, "schedule=warm_down")
    assert same_weights(weights(module), weights(grpo("append", 2)[0]))


@both_contexts
def test_shaped_advantages_are_those_of_the_shaping_and_nothing_else_moves(context):
    module, curve = run("rlsd", iterations=1, context=context)
    prepared = module.report.prepared
    batch, mask = prepared.batch, prepared.batch.response_mask
    plain = prepared.unshaped[mask]
    factor = torch.exp(plain.sign() * (batch.teacher_log_probs - batch.old_log_probs)[mask]).clamp(0.8, 1.2)
    torch.testing.assert_close(batch.advantage[mask], plain * (0.5 + 0.5 * factor))
    assert (batch.advantage[~mask] == 0).all()
    assert curve[0]["objective/shaping_weight"] == 0.5
    chosen = plain != 0
    expected = (batch.advantage[mask] / plain)[chosen].mean().item()
    assert curve[0]["objective/advantage_factor_mean"] == pytest.approx(expected, rel=1e-5)


def test_agent_opsd_gives_all_tokens_of_a_turn_one_factor():
    module, _ = run("agent_opsd", iterations=1, context="append")
    prepared = module.report.prepared
    batch, plain = prepared.batch, prepared.unshaped
    factors = {}
    for row, column in (batch.response_mask & (plain != 0)).nonzero().tolist():
        key = row, int(batch.turn_index[row, column])
        factors.setdefault(key, set()).add(round(float(batch.advantage[row, column] / plain[row, column]), 5))
    assert all(len(found) == 1 for found in factors.values())
    assert len({value for found in factors.values() for value in found}) > 2


def test_skills_in_the_prompt_are_read_by_the_student_while_it_plays():
    module, _ = run("skill_grpo", iterations=1)
    hint = list(module.policy.chat.privileged(HintTeacher().hint))
    for found, expected in ((module, True), (grpo("append", 2)[0], False)):
        rows = found.report.prepared.batch.ids.tolist()
        assert all(any(row[i : i + len(hint)] == hint for i in range(len(row))) is expected for row in rows)
    assert module.report.prepared.batch.teacher_log_probs is None


def test_skills_cannot_be_read_where_there_are_none():
    with pytest.raises(UserError, match=r"skills_in_prompt=true needs a teacher's skills, but teacher=none"):
        toy_module(toy_policy(), skills_in_prompt=True, distillation_coefficient=0.0)
    with pytest.raises(UserError, match=r"skills_in_prompt=true needs a teacher's skills, but teacher=none"):
        toy_datamodule(toy_policy(), skills_in_prompt=True)
    with pytest.raises(UserError, match="only known after the episode"):
        toy_datamodule(toy_policy(), teacher=HindsightTeacher(RuleAnalyzer()), skills_in_prompt=True)


def test_skill_prompt_has_nothing_to_train():
    module, data = method_run("skill_prompt")
    with pytest.raises(UserError, match=r"every coefficient is 0.*train=false"):
        train(module, data, 1)
    assert method_settings("skill_prompt").config["train"] is False


@both_contexts
def test_a_constant_length_changes_the_scale_of_the_policy_term_alone(context):
    """All in one step: the gradient of the policy term times tokens / (length x episodes), whatever the rows."""
    alone = {"kl_coefficient": 0.0, "entropy_coefficient": 0.0, "distillation_coefficient": 0.0, "max_grad_norm": 1e9}
    norms, counts = {}, {}
    for length in (None, ConstantLength(3, 6)):
        policy = toy_policy()
        module = toy_module(
            policy,
            policy_length=length,
            context=context,
            episodes_per_step=None,
            max_tokens_per_micro_batch=200,
            **alone,
        )
        curve = train(module, toy_datamodule(policy, context=context), 1).curve()
        norms[length] = curve[0]["train/grad_norm"]
        mask = module.report.prepared.batch.response_mask
        counts = int(mask.sum()), len(set(module.report.prepared.batch.episode_index[mask.any(dim=1)].tolist()))
    expected = norms[None] * counts[0] / (18 * counts[1])
    assert norms[ConstantLength(3, 6)] == pytest.approx(expected, rel=1e-4)


@both_contexts
@pytest.mark.parametrize("ratio", ["turn", "episode"])
def test_a_pooled_ratio_does_not_depend_on_the_cut_into_micro_batches(ratio, context):
    settings = {"ratio": ratio, "distillation_coefficient": 0.0, "episodes_per_step": 6, "context": context}
    if ratio == "episode" and context == "window":
        with pytest.raises(UserError, match=r"ratio=episode.*window"):
            toy_module(toy_policy(), **settings)
        return
    found = []
    for limit in (150, 100_000):
        policy = toy_policy()
        module = toy_module(policy, max_tokens_per_micro_batch=limit, **settings)
        curve = train(module, toy_datamodule(policy, context=context), 1).curve()
        found.append((weights(module), curve[0]))
    for name, tensor in found[0][0].items():
        torch.testing.assert_close(tensor, found[1][0][name], rtol=0, atol=2e-4)
    assert found[0][1]["train/clip_fraction"] == pytest.approx(found[1][1]["train/clip_fraction"], abs=1e-6)
    policy = toy_policy()
    tokens = toy_module(policy, max_tokens_per_micro_batch=150, **(settings | {"ratio": "token"}))
    train(tokens, toy_datamodule(policy, context=context), 1)
    assert not same_weights(weights(tokens), found[0][0])


def test_gigpo_says_how_many_turns_have_company():
    _, curve = run("gigpo", iterations=1)
    assert 0 < curve[0]["rollout/step_group_fraction"] <= 1


def test_the_reference_code_has_its_own_form_of_grpos_advantage_and_of_no_other():
    settings = {"context": "window", "rows_per_step": 4, "micro_batch_rows": 2, "distillation_coefficient": 0.0}
    module = toy_module(toy_policy(), advantage=GroupAdvantage(invalid_penalty=0.3), **settings)
    assert module.method.estimator == ReferenceCodeAdvantage(invalid_penalty=0.3)
    with pytest.raises(UserError, match="loss_aggregation=reference_code"):
        toy_module(toy_policy(), advantage=StepGroupAdvantage(), **settings)


def test_shaping_needs_a_scored_teacher():
    with pytest.raises(UserError, match=r"algorithm\.shaping\.weight=0\.5 needs a scored teacher"):
        toy_module(toy_policy(), shaping=RLSD(), distillation_coefficient=0.0)


def test_every_method_has_a_file_of_its_name():
    for method in METHODS:
        assert method_settings(method).method.name == method
