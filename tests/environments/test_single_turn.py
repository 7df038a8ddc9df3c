"""A data set with a reward function is an environment of two methods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sdar.config.plugins import allowing
from sdar.environments.check import check_env
from sdar.environments.single_turn import Example, SingleTurnEnvironment
from sdar.episode import EndReason, Observation, StepOutcome
from sdar.errors import UserError
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.run.rules import processes
from sdar.run.validate import compose
from toys.training import toy_datamodule, toy_module, toy_policy, toy_rollout, train


class Vowels(SingleTurnEnvironment):
    """The reward is the share of vowels in the response, from which ``offset`` is taken."""

    name = "vowels"
    solved_return = 10.0

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def examples(self, split: str) -> Sequence[Example]:
        return [Example(f"{split} {number}", answer="aeiou", kind=f"kind {number % 2}") for number in range(6)]

    def reward(self, response: str, example: Example) -> float:
        return sum(letter in example.answer for letter in response) / max(len(response), 1) - self.offset

    def well_formed(self, response: str) -> bool:
        return response.isalpha()


def played(environment: SingleTurnEnvironment, response: str) -> StepOutcome:
    pool = environment.open_pool()
    shown = pool.reset(environment.tasks("train")[:2])
    assert [(seen.text, seen.actions) for seen in shown if isinstance(seen, Observation)] == [
        ("train 0", None),
        ("train 1", None),
    ]
    return pool.step({1: response})[1]


def test_a_subclass_keeps_to_the_protocol() -> None:
    assert check_env(Vowels()).tasks > 0
    tasks = Vowels().tasks("valid")
    assert [task.task_type for task in tasks[:3]] == ["kind 0", "kind 1", "kind 0"]
    assert {task.content_hash for task in tasks}.isdisjoint(task.content_hash for task in Vowels().tasks("train"))


def test_the_reward_is_scaled_and_1_solves() -> None:
    half, whole = played(Vowels(), "ab"), played(Vowels(), "aei")
    assert (half.reward, half.success, half.end, half.scores) == (5.0, False, EndReason.FAILURE, {"reward": 0.5})
    assert (whole.reward, whole.success, whole.end) == (10.0, True, EndReason.SUCCESS)
    assert half.done
    assert whole.done


def test_the_format_decides_whether_a_response_is_valid() -> None:
    assert Vowels().project("abc").valid
    assert not Vowels().project("a c").valid


@pytest.mark.parametrize("offset", [2.0, -3.0, float("nan")])
def test_a_reward_out_of_range_ends_its_episode_as_an_error(offset: float) -> None:
    environment = Vowels(offset)
    collector = Collector(toy_policy(), environment, toy_rollout())
    requests = [EpisodeRequest(task, 0) for task in environment.tasks("train")[:2]]
    episodes = collector.collect(requests, seed=0, key=("test",)).episodes
    assert {episode.end for episode in episodes} == {EndReason.ERROR_ENVIRONMENT}
    assert "Vowels.reward must be in [0, 1], got" in str(episodes[0].error)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="split must be one of train, valid, got 'test'"):
        Vowels().tasks("test")


def test_a_policy_learns_it() -> None:
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None, learning_rate=2e-2)
    data = toy_datamodule(policy, environment=Vowels(), tasks=4, group_size=6, max_concurrent_episodes=24)
    curve = train(module, data, 12).curve()
    returns = [figures["rollout/return_mean"] for figures in curve.values()]
    assert sum(returns[-3:]) / 3 > 1.5 * sum(returns[:3]) / 3


def test_the_example_in_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "SingleTurnEnvironment" in block
    ]
    names: dict[str, Any] = {}
    exec(code, names)
    environment = names["Capitals"]()
    assert check_env(environment).tasks > 0
    (kenya,) = environment.tasks("valid")
    pool = environment.open_pool()
    pool.reset([kenya])
    assert pool.step({0: "It is Nairobi."})[0].success

    (tmp_path / "capitals.py").write_text(code)
    (yaml,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "capitals.Capitals" in block]
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "capitals.yaml").write_text(yaml)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "available_gpus", lambda: 1)
    (command,) = re.findall(r"PYTHONPATH=\. (sdar train .*)", text.replace("\\\n", ""))
    _, _, *words = command.split()
    overrides = [word for word in words if "=" in word]
    with allowing(["capitals"]):
        settings = compose([*overrides, f"run_dir={tmp_path / 'run'}"], config_dir=tmp_path)
    assert settings.config["environment"]["_target_"] == "capitals.Capitals"
    assert settings.method.name == "grpo"
