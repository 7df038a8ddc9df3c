"""A module and a data module that do not belong together are refused before an iteration is played."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sdar.errors import UserError
from sdar.learning.datamodule import RolloutDataModule
from sdar.learning.method import LossAggregation
from sdar.learning.module import SDARModule
from sdar.learning.optimizer import OptimizerSettings
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings
from sdar.rollout.vllm.settings import VllmSettings
from toys.fake_vllm import install
from toys.rollouts import CountingEnvironment
from toys.training import PLAIN_GRPO, HintTeacher, LettersEnvironment, toy_policy, toy_rollout, train

ROLLOUT = toy_rollout()


def parts(policy: Any, rollout: RolloutSettings = ROLLOUT, **settings: Any) -> RolloutDataModule:
    environment = LettersEnvironment()
    collector = Collector(policy, settings.pop("played", environment), rollout)
    return RolloutDataModule(collector, environment, settings.pop("method", PLAIN_GRPO), rollout, 1, **settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"context": "window"}, "rollout.context=append for window"),
        (
            {"sampling": replace(ROLLOUT.sampling, temperature=0.3)},
            r"rollout.sampling.temperature=1.0 for 0.3; pass the collector's RolloutSettings to SDARModule, or none",
        ),
        ({"backend": "vllm"}, "rollout.backend=own for vllm"),
    ],
)
def test_episodes_that_are_played_otherwise_than_they_are_learned_from_are_refused(
    change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    policy = toy_policy()
    with pytest.raises(UserError, match=words):
        train(SDARModule(policy, PLAIN_GRPO, rollout=ROLLOUT), parts(policy, replace(ROLLOUT, **change)), 1)


def test_a_module_without_settings_of_rollouts_learns_with_those_that_are_played() -> None:
    policy, rollout = toy_policy(), replace(ROLLOUT, sampling=replace(ROLLOUT.sampling, temperature=0.7))
    module = SDARModule(policy, PLAIN_GRPO)
    curve = train(module, parts(policy, rollout), 1).curve()
    assert module.rollout == rollout
    other = toy_policy()
    assert train(SDARModule(other, PLAIN_GRPO, rollout=rollout), parts(other, rollout), 1).curve() == curve


def test_two_models_are_refused() -> None:
    with pytest.raises(UserError, match="must have the same policy, got two models"):
        train(SDARModule(toy_policy(), PLAIN_GRPO, rollout=ROLLOUT), parts(toy_policy()), 1)


def test_two_environments_are_refused() -> None:
    policy = toy_policy()
    with pytest.raises(UserError, match="the same environment, got 'letters' for the tasks and 'counting' to play"):
        train(SDARModule(policy, PLAIN_GRPO, rollout=ROLLOUT), parts(policy, played=CountingEnvironment()), 1)


def test_a_collector_that_plays_other_groups_than_are_drawn_is_refused() -> None:
    policy = toy_policy()
    data = parts(policy)
    data.collector.settings = replace(ROLLOUT, group_size=5)
    with pytest.raises(UserError, match=r"must have the same RolloutSettings, got rollout.group_size=3 and 5"):
        train(SDARModule(policy, PLAIN_GRPO, rollout=ROLLOUT), data, 1)


def test_what_vllm_weighs_with_is_compared_where_it_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    policy, other = toy_policy(), replace(ROLLOUT, backend="vllm", vllm=VllmSettings(importance_cap=None))
    module = SDARModule(policy, PLAIN_GRPO, rollout=replace(ROLLOUT, backend="vllm"))
    with pytest.raises(UserError, match=r"rollout.vllm.importance_cap=2.0 for None"):
        train(module, parts(policy, other), 1)
    capped = replace(ROLLOUT, vllm=VllmSettings(importance_cap=None))
    own = toy_policy()
    train(SDARModule(own, PLAIN_GRPO, rollout=ROLLOUT), parts(own, capped), 1)


def test_settings_that_are_given_later_are_kept_and_those_of_each_fit_are_taken() -> None:
    policy = toy_policy()
    module = SDARModule(policy, PLAIN_GRPO)
    for temperature in (0.7, 0.9):
        rollout = replace(ROLLOUT, sampling=replace(ROLLOUT.sampling, temperature=temperature))
        train(module, parts(policy, rollout), 1)
        assert module.rollout == rollout
    module.rollout = ROLLOUT
    with pytest.raises(UserError, match=r"rollout.sampling.temperature=1.0 for 0.9"):
        train(module, parts(policy, rollout), 1)


def test_a_data_module_with_its_own_episodes_says_how_they_were_played() -> None:
    class Recorded(RolloutDataModule):
        def collect(self, iteration: int, *, rank: int = 0, world_size: int = 1) -> Any:
            return self.recorded.collect(iteration, rank=rank, world_size=world_size)

    rollout = replace(ROLLOUT, sampling=replace(ROLLOUT.sampling, temperature=0.7))
    player, policy = toy_policy(), toy_policy()
    data = parts(player, rollout)
    recorded = Recorded(data.collector, data.environment, PLAIN_GRPO, rollout, 1)
    recorded.recorded = data  # played by another policy
    module = SDARModule(policy, PLAIN_GRPO)
    train(module, recorded, 1)
    assert module.rollout == rollout


def test_a_method_that_needs_windows_is_judged_by_the_settings_that_hold() -> None:
    method = replace(PLAIN_GRPO, aggregation=LossAggregation("reference_code", 1))
    optimizer = OptimizerSettings(episodes_per_step=None, rows_per_step=4)
    policy, windows = toy_policy(), toy_rollout(context="window")
    train(SDARModule(policy, method, optimizer=optimizer), parts(policy, windows, method=method), 1)
    with pytest.raises(UserError, match="loss_aggregation=reference_code averages over rows of one turn each"):
        train(SDARModule(policy, method, optimizer=optimizer), parts(policy, method=method), 1)


def test_two_methods_are_refused() -> None:
    policy, reading = toy_policy(), replace(PLAIN_GRPO, skills_in_prompt=True)
    with pytest.raises(UserError, match="got skills_in_prompt=False and True"):
        train(SDARModule(policy, PLAIN_GRPO, rollout=ROLLOUT), parts(policy, method=reading, teacher=HintTeacher()), 1)


def test_two_teachers_are_refused() -> None:
    policy, teacher = toy_policy(), HintTeacher()
    module = SDARModule(policy, PLAIN_GRPO, teacher, rollout=ROLLOUT)
    with pytest.raises(UserError, match="the same teacher, got another one and a HintTeacher; pass one object to both"):
        train(module, parts(policy, teacher=HintTeacher()), 1)
    with pytest.raises(UserError, match="the same teacher, got none and a HintTeacher"):
        train(SDARModule(policy, PLAIN_GRPO, rollout=ROLLOUT), parts(policy, teacher=teacher), 1)


@pytest.mark.parametrize("both", [True, False])
def test_the_modules_teacher_is_told_of_every_iteration(both: bool) -> None:
    class Told(HintTeacher):
        def begin(self, tasks: Any, *, iteration: int, seed: int) -> None:
            begun.append((len(tasks), iteration, seed))

    begun: list[tuple[int, int, int]] = []
    policy, teacher = toy_policy(), Told()
    module = SDARModule(policy, PLAIN_GRPO, teacher, rollout=ROLLOUT)
    train(module, parts(policy, teacher=teacher if both else None), 2)
    assert begun == [(ROLLOUT.tasks_per_iteration, 0, 1), (ROLLOUT.tasks_per_iteration, 1, 1)]


def test_the_settings_backend_plays_where_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    served = replace(ROLLOUT, backend="vllm")
    with pytest.raises(UserError, match="vllm"):  # which is not installed
        Collector(toy_policy(), LettersEnvironment(), served)
    engine = install(monkeypatch)
    policy = toy_policy()
    train(SDARModule(policy, PLAIN_GRPO), parts(policy, served), 1)
    assert engine.made
