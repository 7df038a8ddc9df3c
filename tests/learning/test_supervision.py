"""Extra supervised rows: a mask and a denominator of their own, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdar.episode import EndReason
from sdar.errors import UserError
from sdar.learning.supervision import SolvedEpisodes
from sdar.objective.schedule import Schedules, WarmDown
from sdar.policy.log_probs import score_tokens
from toys.training import HintTeacher, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

both_contexts = pytest.mark.parametrize("context", ["append", "window"])
NOTHING_ELSE = {
    "policy_coefficient": 0.0, "kl_coefficient": 0.0, "entropy_coefficient": 1e-12, "distillation_coefficient": 0.0,
    "max_grad_norm": 1e9, "episodes_per_step": None,
}  # fmt: skip


def run(context="append", iterations=1, supervision=None, **settings):
    policy = toy_policy()
    objective = {"distillation_coefficient": 0.0} | settings
    module = toy_module(policy, context=context, supervision=supervision, **objective)
    data = toy_datamodule(policy, context=context)
    memory = train(module, data, iterations)
    return module, memory.curve(), data


@both_contexts
def test_the_shortest_solved_attempt_of_each_group_is_supervised(context):
    _, _, data = run(context=context)
    episodes = data.collect(0).episodes
    rows = SolvedEpisodes().rows(episodes, context, 0)
    expected = 0
    for task in {episode.task.task_id for episode in episodes}:
        solved = [e for e in episodes if e.task.task_id == task and e.success]
        if solved:
            expected += min(solved, key=lambda e: len(e.turns)).num_response_tokens
    assert int(rows.response_mask.sum()) == expected > 0
    for episode in episodes:
        episode.end = EndReason.ERROR_TOOL
    assert len(SolvedEpisodes().rows(episodes, context, 0).ids) == 0


@both_contexts
def test_their_loss_is_minus_the_mean_log_prob_over_their_own_tokens(context):
    """Alone, with a coefficient of 2, in one step of many micro-batches: value and gradient of the plain mean."""
    _, curve, _ = run(
        context, supervision=SolvedEpisodes(coefficient=2.0), max_tokens_per_micro_batch=130, **NOTHING_ELSE
    )
    policy = toy_policy()
    rows = SolvedEpisodes().rows(toy_datamodule(policy, context=context).collect(0).episodes, context, 0)
    log_probs = score_tokens(policy.model, *rows).log_probs[rows.response_mask]
    assert curve[0]["loss/supervised"] == pytest.approx(-log_probs.mean().item(), rel=1e-4)
    (-2.0 * log_probs.mean()).backward()
    norm = torch.stack([p.grad.norm() for p in policy.model.parameters() if p.grad is not None]).norm()
    assert curve[0]["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-3)


@both_contexts
def test_coefficient_zero_leaves_every_bit_and_another_does_not(context):
    plain, curve, _ = run(context, iterations=2)
    off, same, _ = run(context, iterations=2, supervision=SolvedEpisodes(coefficient=0.0))
    on, other, _ = run(context, iterations=2, supervision=SolvedEpisodes(coefficient=0.1))
    assert same_weights(weights(plain), weights(off))
    assert curve == same
    assert not same_weights(weights(plain), weights(on))
    # Before the first update everything else is what it was.
    assert {name: other[0][name] for name in curve[0] if name.startswith("rollout/")} == {
        name: value for name, value in curve[0].items() if name.startswith("rollout/")
    }


def test_supervision_makes_what_was_said_likelier():
    module, curve, _ = run(
        iterations=1, supervision=SolvedEpisodes(coefficient=1.0), **(NOTHING_ELSE | {"learning_rate": 1e-2})
    )
    rows = module.report.prepared.supervised.rows
    with torch.no_grad():
        now = -score_tokens(module.model, *rows).log_probs[rows.response_mask].mean().item()
    assert now < curve[0]["loss/supervised"]


def test_an_iteration_without_a_solved_attempt_has_no_supervised_rows(monkeypatch):
    monkeypatch.setattr(SolvedEpisodes, "rows", lambda self, episodes, *rest, _=SolvedEpisodes.rows: _(self, [], *rest))
    module, curve, _ = run(supervision=SolvedEpisodes(coefficient=1.0))
    assert "loss/supervised" not in curve[0]
    assert same_weights(weights(module), weights(run()[0]))


EQUAL_GROUP = {"append": 1, "window": 4}
"""Seeds of rollouts with a group that is left out, and a solved attempt in every step."""


@both_contexts
def test_supervised_rows_are_learned_in_steps_that_have_no_other(context):
    """Groups that are left out leave steps without a row of their own; what is dealt out to these counts the same."""
    alone = NOTHING_ELSE | {"episodes_per_step": 3}
    found = {}
    for keep in (True, False):
        policy = toy_policy()
        module = toy_module(policy, context=context, supervision=EverySolved(coefficient=1.0), **alone)
        data = toy_datamodule(policy, context=context, seed=EQUAL_GROUP[context], keep_equal_groups=keep)
        curve = train(module, data, 1).curve()
        prepared = module.report.prepared
        idle = [not prepared.batch.response_mask[step.rows].any() for step in prepared.steps]
        assert any(idle) is not keep
        assert all(count > 0 for count in prepared.supervised.counts)
        found[keep] = weights(module), curve[0]["loss/supervised"]
    assert same_weights(found[True][0], found[False][0])
    assert found[True][1] == found[False][1]


class EverySolved(SolvedEpisodes):
    """Also of groups that are left out, so that the rows are the same with them and without."""

    def rows(self, episodes, context, pad_id):
        left = [episode for episode in episodes if not episode.in_loss]
        for episode in left:
            episode.in_loss = True
        rows = super().rows(episodes, context, pad_id)
        for episode in left:
            episode.in_loss = False
        return rows


@both_contexts
def test_supervised_rows_are_learned_when_a_schedule_has_taken_out_the_only_term(context, monkeypatch):
    """As the supervised rows alone, next to a term too small to be seen."""
    alone = NOTHING_ELSE | {"entropy_coefficient": 0.0, "distillation_coefficient": 0.1}
    policy = toy_policy()
    down = Schedules(coefficient=WarmDown(zero_at=1))
    monkeypatch.setattr(WarmDown, "factor", lambda self, iteration: 0.0)
    settings = alone | {"schedules": down, "supervision": SolvedEpisodes(coefficient=1.0)}
    module = toy_module(policy, HintTeacher(), context=context, **settings)
    curve = train(module, toy_datamodule(policy, context=context), 1).curve()
    alike, other, _ = run(context, supervision=SolvedEpisodes(coefficient=1.0), **NOTHING_ELSE)
    assert curve[0]["loss/supervised"] == other[0]["loss/supervised"]
    for name, tensor in weights(module).items():
        torch.testing.assert_close(tensor, weights(alike)[name], rtol=0, atol=1e-6)


def test_a_coefficient_below_zero_is_refused():
    with pytest.raises(UserError, match=r"SolvedEpisodes\.coefficient must be a number >= 0, got -1\.0"):
        SolvedEpisodes(coefficient=-1.0)


def test_solved_attempts_alone_can_be_learned_from():
    """Without any term of the objective."""
    module, curve, _ = run(supervision=SolvedEpisodes(coefficient=1.0), **(NOTHING_ELSE | {"entropy_coefficient": 0.0}))
    module.method.check(None, module.rollout, module.optimizer_settings)
    assert curve[0]["loss/supervised"] > 0
    assert not same_weights(weights(module), weights(toy_module(toy_policy(), distillation_coefficient=0.0)))
    with pytest.raises(UserError, match="there is nothing to train"):
        replace(module.method, supervision=None).check(None, module.rollout, module.optimizer_settings)
