"""Advantage estimators: Dr. GRPO and GiGPO against hand-made episodes and plain loops."""

import math
import re
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.errors import UserError
from sdar.objective.advantage import group_advantages
from sdar.objective.estimator import CentredAdvantage, GroupAdvantage, ReferenceCodeAdvantage
from sdar.objective.gigpo import StepGroupAdvantage, discounted_returns, step_advantages, step_groups


def episode(task, turns, *, end=EndReason.FAILURE, member=0):
    """``turns``: (anchor, reward) or (anchor, reward, valid)."""
    made = [
        Turn([1], [2], "", "", (rest or (True,))[0], Observation("", None, anchor), reward=reward)
        for anchor, reward, *rest in turns
    ]
    return Episode(Task(task, "type", "do it", "train", "hash"), member, made, end, success=False)


# The task "a" was tried three times from "start". Two attempts met "desk"; one of them twice.
GROUP = [
    episode("a", [("start", 0), ("desk", 0), ("safe", 10)]),
    episode("a", [("start", 0), ("desk", 0, False), ("desk", 0)]),
    episode("a", [("start", 0), ("shelf", 0)]),
]


def test_dr_grpo_by_hand():
    found = CentredAdvantage(invalid_penalty=0.1).turns(GROUP)
    mean = 10 / 3
    assert found[0] == pytest.approx([10 - mean] * 3)
    assert found[1] == pytest.approx([-mean, -mean - 0.1, -mean])
    assert found[2] == pytest.approx([-mean] * 2)


def test_rewards_are_discounted_from_the_turn_that_earned_them():
    assert discounted_returns(episode("a", [("x", 1), ("x", 2), ("x", 4)]), 0.5) == [3.0, 4.0, 4.0]
    assert discounted_returns(episode("a", []), 0.5) == []


def test_the_step_groups_of_a_hand_made_set():
    other = episode("b", [("start", 0), ("desk", 10)])
    broken = episode("a", [("desk", 0)], end=EndReason.ERROR_ENVIRONMENT)
    groups = step_groups([GROUP[0], other, GROUP[1], broken, GROUP[2]])
    assert groups == {
        ("a", "start"): [(0, 0), (2, 0), (4, 0)],
        ("a", "desk"): [(0, 1), (2, 1), (2, 2)],
        ("a", "safe"): [(0, 2)],
        ("a", "shelf"): [(4, 1)],
    }  # the other task has a single attempt, which compares nothing; the broken one is no attempt
    counts = StepGroupAdvantage().metrics([*GROUP, other, broken])
    assert counts == {"rollout/step_group_fraction": (6, 8)}


def test_gigpo_by_hand():
    """Discounted returns 8.1, 9, 10 of the first attempt; everything else is 0."""
    found = StepGroupAdvantage(invalid_penalty=0.1, gamma=0.9, step_weight=2.0, mode="mean_norm").turns(GROUP)
    mean = 10 / 3
    assert found[0] == pytest.approx([10 - mean + 2 * (8.1 - 2.7), 10 - mean + 2 * (9 - 3), 10 - mean + 0])
    assert found[1] == pytest.approx([-mean + 2 * -2.7, -mean - 0.1 + 2 * -3, -mean + 2 * -3])
    assert found[2] == pytest.approx([-mean + 2 * -2.7, -mean + 0])


def test_the_penalty_counts_once_and_moves_no_other_turn():
    gigpo = StepGroupAdvantage(invalid_penalty=0.5)
    plain = StepGroupAdvantage(invalid_penalty=0.0).turns(GROUP)
    found = gigpo.turns(GROUP)
    differences = [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(plain, found, strict=True)]
    assert differences == [pytest.approx([0, 0, 0]), pytest.approx([0, 0.5, 0]), pytest.approx([0, 0])]


def loop(episodes, gamma, weight, mode, penalty, floor):
    """GiGPO once more: for every turn look at all others, with nothing but lists."""
    attempts = [e for e in episodes if not e.end.is_error]
    result = []
    for one in episodes:
        group = [e for e in attempts if e.task.task_id == one.task.task_id]
        if one.end.is_error or len(group) < 2:
            result.append([0.0 for _ in one.turns])
            continue
        returns = [sum(t.reward for t in e.turns) for e in group]
        values = []
        for k, turn in enumerate(one.turns):
            a_e = sum(t.reward for t in one.turns) - (0 if turn.valid else penalty) - statistics.fmean(returns)
            same = [
                sum(gamma**j * t.reward for j, t in enumerate(e.turns[n:]))
                for e in group
                for n, other in enumerate(e.turns)
                if other.observation.anchor == turn.observation.anchor
            ]
            own = sum(gamma**j * t.reward for j, t in enumerate(one.turns[k:]))
            a_s = own - statistics.fmean(same) if len(same) > 1 else 0.0
            if mode == "mean_std_norm":
                a_e /= max(statistics.stdev(returns), floor)
                a_s /= max(statistics.stdev(same), floor) if len(same) > 1 else 1.0
            values.append(a_e + weight * a_s)
        result.append(values)
    return result


@st.composite
def sets(draw):
    """A few attempts at two tasks; few states, so that they meet; some attempts broke."""
    ends = st.sampled_from([EndReason.SUCCESS, EndReason.FAILURE, EndReason.ERROR_ENVIRONMENT])
    turns = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([0.0, 1.0, 10.0]), st.booleans()), max_size=5)
    return [
        episode(draw(st.sampled_from("ab")), draw(turns), end=draw(ends), member=n)
        for n in range(draw(st.integers(0, 8)))
    ]


@given(
    sets(),
    st.sampled_from([0.0, 0.9, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from(["mean_norm", "mean_std_norm"]),
)
def test_gigpo_equals_plain_loops(episodes, gamma, weight, mode):
    estimator = StepGroupAdvantage(0.1, 0.5, gamma, weight, mode)
    for values, expected in zip(estimator.turns(episodes), loop(episodes, gamma, weight, mode, 0.1, 0.5), strict=True):
        assert values == pytest.approx(expected, abs=1e-9)


@given(sets())
def test_gigpo_with_step_weight_zero_is_grpo_or_dr_grpo_bit_by_bit(episodes):
    off = {"invalid_penalty": 0.1, "step_weight": 0.0}
    assert StepGroupAdvantage(mode="mean_std_norm", **off).turns(episodes) == GroupAdvantage(0.1, 1.0).turns(episodes)
    assert StepGroupAdvantage(mode="mean_norm", **off).turns(episodes) == CentredAdvantage(0.1).turns(episodes)
    assert GroupAdvantage(0.1, 1.0).turns(episodes) == group_advantages(episodes, invalid_penalty=0.1)


@given(sets())
def test_broken_episodes_move_nobody_elses_credit(episodes):
    attempts = [e for e in episodes if not e.end.is_error]
    for estimator in (StepGroupAdvantage(), CentredAdvantage(), GroupAdvantage()):
        found = estimator.turns(episodes)
        assert [v for v, e in zip(found, episodes, strict=True) if not e.end.is_error] == estimator.turns(attempts)
        assert all(not any(v) for v, e in zip(found, episodes, strict=True) if e.end.is_error)


def test_turns_of_a_step_group_sum_to_zero():
    found = step_advantages(GROUP, gamma=0.95)
    for members in step_groups(GROUP).values():
        assert math.fsum(found[i][k] for i, k in members) == pytest.approx(0)


def test_only_grpo_has_a_form_over_turn_rows():
    assert GroupAdvantage(invalid_penalty=0.3).over_turn_rows() == ReferenceCodeAdvantage(0.3)
    for estimator in (CentredAdvantage(), StepGroupAdvantage()):
        with pytest.raises(UserError, match=r"loss_aggregation=reference_code.*algorithm=grpo"):
            estimator.over_turn_rows()


@pytest.mark.parametrize(
    ("kind", "setting", "value", "allowed"),
    [
        (GroupAdvantage, "std_floor", 0.0, "a number > 0"),
        (GroupAdvantage, "std_floor", math.nan, "a number > 0"),
        (GroupAdvantage, "invalid_penalty", -0.1, "a number >= 0"),
        (CentredAdvantage, "invalid_penalty", -1.0, "a number >= 0"),
        (StepGroupAdvantage, "gamma", 1.5, "a number >= 0 and <= 1"),
        (StepGroupAdvantage, "step_weight", math.inf, "a number >= 0"),
        (StepGroupAdvantage, "mode", "none", "'mean_norm' or 'mean_std_norm'"),
        (ReferenceCodeAdvantage, "invalid_penalty", -1.0, "a number >= 0"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(kind, setting, value, allowed):
    message = f"{kind.__name__}.{setting} must be {allowed}, got {value!r}"
    with pytest.raises(UserError, match=re.escape(message)):
        kind(**{setting: value})
