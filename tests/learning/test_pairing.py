"""A module and a data module that do not belong together are refused before an iteration is played."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sdar.errors import UserError
from sdar.learning.datamodule import RolloutDataModule
from sdar.learning.module import SDARModule
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings
from sdar.rollout.vllm.settings import VllmSettings
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
        ({"vllm": VllmSettings(importance_cap=None)}, "rollout.vllm.importance_cap=2.0 for None"),
    ],
)
def test_episodes_that_are_played_otherwise_than_they_are_learned_from_are_refused(
    change: dict[str, Any], words: str
) -> None:
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
    with pytest.raises(UserError, match="the same environment, got 'letters' for the tasks and 'letters' to play them"):
        train(SDARModule(policy, PLAIN_GRPO, rollout=ROLLOUT), parts(policy, played=LettersEnvironment()), 1)


def test_two_methods_are_refused() -> None:
    policy, reading = toy_policy(), replace(PLAIN_GRPO, skills_in_prompt=True)
    with pytest.raises(UserError, match="got skills_in_prompt=False and True"):
        train(SDARModule(policy, PLAIN_GRPO, rollout=ROLLOUT), parts(policy, method=reading, teacher=HintTeacher()), 1)
