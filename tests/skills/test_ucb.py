"""The bandit equals a sequence computed by hand, and does not depend on how an iteration is split over ranks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.episode import Task, TaskOutcome
from sdar.errors import UserError
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.ucb import Arm, UCBRetrieval

LIBRARY = SkillLibrary(
    (
        Skill("general", SkillKind.GENERAL, (), (), "Look."),
        *(Skill(name, SkillKind.TASK, ("x",), (), f"About {name}.") for name in ("a", "b", "c")),
    )
)


def tasks(*names, task_type="x"):
    return [Task(name, task_type, "", "train", "") for name in names]


def outcome(task, mean_return, episodes=8, gap=None):
    return TaskOutcome(task, episodes, mean_return, mean_return / 10, gap)


def chosen(bandit, task):
    (choice,) = bandit.choose(LIBRARY, task, None)
    return choice.skill.name


def play(bandit, of_iteration, returns):
    bandit.begin(LIBRARY, of_iteration)
    found = [chosen(bandit, task) for task in of_iteration]
    bandit.observe([outcome(t, value) for t, value in zip(of_iteration, returns, strict=True)], 10.0)
    return found


def test_a_sequence_by_hand():
    bandit = UCBRetrieval(exploration=1.0)
    # Two tasks of the type in every iteration, c = 1. Untried skills come first; n is updated at the choice.
    assert play(bandit, tasks("t1", "t2"), [10, 0]) == ["a", "b"]  # means: a 1, b 0
    # c first. Then N = 3, all n = 1: a has 1 + sqrt(ln 3) = 2.048, b and c (no reward yet) 1.048.
    assert play(bandit, tasks("t3", "t4"), [5, 8]) == ["c", "a"]  # c 0.5, a (1 + 0.8) / 2 = 0.9
    # N = 4: a 0.9 + sqrt(ln 4 / 2) = 1.733, b sqrt(ln 4) = 1.177, c 0.5 + 1.177 = 1.677 -> a. Its n is 3 at once.
    # N = 5: a 0.9 + sqrt(ln 5 / 3) = 1.632, b sqrt(ln 5) = 1.269, c 1.769 -> c.
    assert play(bandit, tasks("t5", "t6"), [0, 0]) == ["a", "c"]  # a 1.8 / 3 = 0.6, c 0.25
    # N = 6: a 0.6 + sqrt(ln 6 / 3) = 1.373, b sqrt(ln 6) = 1.339, c 0.25 + sqrt(ln 6 / 2) = 1.196 -> a.
    # N = 7: a 0.6 + sqrt(ln 7 / 4) = 1.297, b sqrt(ln 7) = 1.395, c 0.25 + sqrt(ln 7 / 2) = 1.236 -> b.
    assert play(bandit, tasks("t7", "t8"), [10, 10]) == ["a", "b"]
    record = bandit.record()["ucb"]["x"]
    assert record["a"] == {"chosen": 4, "mean": pytest.approx(2.8 / 4), "rewards": 4}
    assert record["b"] == {"chosen": 2, "mean": pytest.approx(0.5), "rewards": 2}
    assert record["c"] == {"chosen": 2, "mean": pytest.approx(0.25), "rewards": 2}
    assert bandit.metrics()["skills/ucb_mean/x/a"] == pytest.approx(0.7)
    assert bandit.metrics()["skills/ucb_share/x/b"] == pytest.approx(0.25)


def test_the_bound_has_the_value_of_the_formula():
    assert Arm(4, 1.5, 3).score(100, 2.0) == pytest.approx(0.5 + 2 * math.sqrt(math.log(100) / 4))
    assert Arm(0).score(5, 1.0) == math.inf


def test_task_types_have_bandits_of_their_own():
    bandit = UCBRetrieval()
    play(bandit, tasks("t1", "t2", "t3"), [10, 0, 0])
    assert play(bandit, tasks("u1", task_type="y"), [0]) == ["a"]
    assert set(bandit.record()["ucb"]) == {"x", "y"}


def test_choosing_again_for_the_same_iteration_changes_nothing():
    once, twice = UCBRetrieval(), UCBRetrieval()
    of_iteration = tasks("t1", "t2", "t3", "t4")
    twice.begin(LIBRARY, of_iteration)
    twice.begin(LIBRARY, tasks("other"))
    assert play(once, of_iteration, [1, 2, 3, 4]) == play(twice, of_iteration, [1, 2, 3, 4])
    assert once.state() == twice.state()


def test_asking_for_other_tasks_between_changes_nothing():
    bandit = UCBRetrieval()
    play(bandit, tasks("t1", "t2"), [10, 0])
    before = bandit.state()
    assert chosen(bandit, tasks("elsewhere")[0]) == "c"
    assert bandit.state() == before


def test_a_group_that_tells_nothing_counts_as_a_choice_and_not_as_a_reward():
    bandit = UCBRetrieval(reward="gap_on_success")
    (task,) = tasks("t1")
    bandit.begin(LIBRARY, [task])
    bandit.observe([outcome(task, 0.0)], 10.0)
    assert bandit.record()["ucb"]["x"] == {"a": {"chosen": 1, "mean": 0.0, "rewards": 0}}


def test_a_task_without_an_episode_leaves_no_trace():
    bandit = UCBRetrieval()
    (task,) = tasks("t1")
    bandit.begin(LIBRARY, [task])
    bandit.observe([outcome(task, 0.0, episodes=0)], 10.0)
    assert bandit.record() == {"ucb": {}}
    assert play(bandit, [task], [10]) == ["a"]


@pytest.mark.parametrize(
    ("gap", "reward"), [(None, None), (0.0, 0.5), (0.1, 1 / (1 + math.exp(-0.5))), (-1e6, 0.0), (1e6, 1.0)]
)
def test_the_gap_on_success_is_squashed_into_the_unit_interval(gap, reward):
    bandit = UCBRetrieval(reward="gap_on_success")
    (task,) = tasks("t1")
    bandit.begin(LIBRARY, [task])
    bandit.observe([outcome(task, 10.0, gap=gap)], 10.0)
    arm = bandit.record()["ucb"]["x"]["a"]
    assert arm["rewards"] == (reward is not None)
    assert arm["mean"] == pytest.approx(reward or 0.0, abs=1e-6)


@given(st.lists(st.lists(st.floats(-5, 15), min_size=3, max_size=3), max_size=8))
def test_returns_are_scaled_into_the_unit_interval_and_state_goes_on_exactly(returns):
    whole, parts = UCBRetrieval(), UCBRetrieval()
    for number, values in enumerate(returns):
        of_iteration = tasks(*(f"t{number}-{n}" for n in range(3)))
        resumed = UCBRetrieval()
        if parts.state()["ucb"]:
            resumed.load_state(parts.state())
        parts = resumed
        assert play(whole, of_iteration, values) == play(parts, of_iteration, values)
    assert whole.state() == parts.state()
    for arm in whole.record()["ucb"].get("x", {}).values():
        assert 0 <= arm["mean"] <= 1


def test_a_checkpoint_of_another_strategy_or_reward_is_refused():
    with pytest.raises(UserError, match=r"it must be retrieval=ucb with retrieval\.reward=return"):
        UCBRetrieval().load_state({})
    with pytest.raises(UserError, match=r"retrieval.reward=gap_on_success"):
        UCBRetrieval(reward="gap_on_success").load_state(UCBRetrieval().state())


def test_a_gap_that_is_no_number_is_no_reward():
    bandit = UCBRetrieval(reward="gap_on_success")
    (task,) = tasks("one")
    for gap in (math.nan, math.inf, 0.5):
        bandit.begin(LIBRARY, [task])
        chosen(bandit, task)
        bandit.observe([outcome(task, 10.0, gap=gap)], 10.0)
    assert all(math.isfinite(value) for value in bandit.metrics().values())
