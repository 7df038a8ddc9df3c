"""Several turns in one class: what happens in one episode is all that an environment has to say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from sdar.environments.check import check_env
from sdar.environments.multi_turn import Example, MultiTurnEnvironment, Reply
from sdar.episode import EndReason, Observation, StepOutcome
from sdar.rollout.collector import Collector, EpisodeRequest
from toys.training import toy_datamodule, toy_module, toy_policy, toy_rollout, train


class Countdown(MultiTurnEnvironment):
    """Count down, a number in each turn; a wrong one ends the episode."""

    name = "countdown"
    solved_return = 10.0
    max_turns = 5

    def __init__(self, reward: float | None = None) -> None:
        self.reward = reward

    def examples(self, split: str) -> Sequence[Example]:
        return [Example(f"Count down from {n}.", str(n)) for n in ((2, 4) if split == "train" else (3,))]

    def begin(self, example: Example) -> list[int]:
        return [int(example.answer)]

    def play(self, state: list[int], action: str) -> Reply:
        if not action.isdigit():
            return Reply("a number, please", refused=True, actions=("0", "1"))
        state[0] -= 1
        right = int(action) == state[0]
        return Reply(f"after {action}", self.reward, done=not right, solved=right and state[0] == 0)

    def expert(self, task: Any) -> list[str]:
        return [str(n) for n in reversed(range(int(task.payload.answer)))]


def outcomes(environment: MultiTurnEnvironment, *actions: str) -> list[StepOutcome]:
    """What the first training task answers."""
    pool = environment.open_pool()
    (shown,) = pool.reset(environment.tasks("train")[:1])
    assert isinstance(shown, Observation)
    assert shown.text == "Count down from 2."
    return [pool.step({0: action})[0] for action in actions]


def test_a_subclass_keeps_to_the_protocol() -> None:
    report = check_env(Countdown())
    assert report.experts > 0
    first, second = Countdown().tasks("train")
    assert (first.task_type, first.split) == ("countdown", "train")
    assert first.content_hash != second.content_hash


def test_the_action_that_solves_the_task_earns_the_whole_return() -> None:
    first, last = outcomes(Countdown(), "1", "0")
    assert (first.reward, first.done, first.end) == (0.0, False, None)
    assert (last.reward, last.done, last.success, last.end) == (10.0, True, True, EndReason.SUCCESS)


def test_rewards_of_ones_own_are_scaled_and_a_failure_ends() -> None:
    (wrong,) = outcomes(Countdown(reward=0.25), "0")
    assert (wrong.reward, wrong.success, wrong.end) == (2.5, False, EndReason.FAILURE)


def test_a_refused_action_leaves_the_episode_where_it_was() -> None:
    refused, first, last = outcomes(Countdown(), "", "1", "0")
    assert refused.observation.refused
    assert refused.observation.actions == ("0", "1")
    assert not first.done
    assert last.success


def test_the_action_stands_between_tags_and_a_response_without_them_is_invalid() -> None:
    environment = Countdown()
    assert environment.project("<think>so</think><action> 1\n</action> <action>2</action>").action == "1"
    without = environment.project("1")
    assert (without.action, without.valid) == ("", False)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("fine", r"Broken\.play must return a Reply, got 'fine'"),
        (Reply("x", reward=1.5), r"the reward of Broken\.play must be in \[0, 1\], got 1\.5"),
        (Reply("x", reward=float("nan")), r"in \[0, 1\], got nan"),
    ],
)
def test_an_answer_that_is_none_ends_the_episode_with_its_reason(answer: Any, said: str) -> None:
    class Broken(Countdown):
        def play(self, state: list[int], action: str) -> Reply:
            return answer

    policy, rollout = toy_policy(), toy_rollout()
    environment = Broken()
    (episode,) = (
        Collector(policy, environment, rollout)
        .collect([EpisodeRequest(environment.tasks("train")[0], 0)], seed=1, key=("test",))
        .episodes
    )
    assert episode.end is EndReason.ERROR_ENVIRONMENT
    assert re.search(said, episode.error or "")


def test_it_is_trained_in_both_contexts() -> None:
    for context in ("append", "window"):
        policy = toy_policy()
        module = toy_module(policy, None, distillation_coefficient=0.0, context=context, episodes_per_step=None)
        data = toy_datamodule(policy, environment=Countdown(), context=context, tasks=2)
        curve = train(module, data, 1).curve()
        assert curve[0]["rollout/end/error_environment"] == 0
