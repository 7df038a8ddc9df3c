"""Advantages compare the attempts at one task; errors, penalties and small groups cannot distort them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.objective.advantage import equal_groups, group_advantages, reference_code_advantages

SEEN = Observation("", None, "")


def episode(task, rewards, *, invalid=(), end=EndReason.FAILURE, member=0):
    turns = [
        Turn([1], [2], "", "", valid=k not in invalid, observation=SEEN, reward=reward)
        for k, reward in enumerate(rewards)
    ]
    return Episode(Task(task, "type", "do it", "train", "hash"), member, turns, end, success=False)


def assert_close(found, expected):
    assert [len(values) for values in found] == [len(values) for values in expected]
    for values, other in zip(found, expected, strict=True):
        assert values == pytest.approx(other)


def test_golden_group_by_hand():
    # Returns 10, 0, 0, 10: mean 5, unbiased variance 100 / 3.
    group = [episode("a", [0, 10]), episode("a", [0]), episode("a", [0, 0, 0]), episode("a", [10])]
    unit = 5 / math.sqrt(100 / 3)
    found = group_advantages(group)
    assert found[0] == pytest.approx([unit] * 2)
    assert found[1] == pytest.approx([-unit])
    assert found[2] == pytest.approx([-unit] * 3)
    assert found[3] == pytest.approx([unit])


def test_groups_are_told_apart_by_task_and_keep_the_order_of_the_episodes():
    episodes = [episode("a", [4]), episode("b", [1]), episode("a", [0]), episode("b", [5])]
    deviation = {"a": math.sqrt(8), "b": math.sqrt(8)}
    expected = [[2 / deviation["a"]], [-2 / deviation["b"]], [-2 / deviation["a"]], [2 / deviation["b"]]]
    assert_close(group_advantages(episodes), expected)


def test_long_episodes_weigh_no_more_than_short_ones():
    short = group_advantages([episode("a", [10]), episode("a", [0])])
    long = group_advantages([episode("a", [10]), episode("a", [0] * 40)])
    assert long[0] == short[0]
    assert long[1] == pytest.approx(short[1] * 40)


def test_penalty_applies_to_the_invalid_turn_alone():
    plain = group_advantages([episode("a", [0, 10, 0]), episode("a", [0, 0])])
    found = group_advantages([episode("a", [0, 10, 0], invalid={1}), episode("a", [0, 0])], invalid_penalty=0.5)
    scale = math.sqrt(50)
    assert found[0] == pytest.approx([plain[0][0], plain[0][1] - 0.5 / scale, plain[0][2]])
    assert found[1] == pytest.approx(plain[1])  # not even through the statistics


def test_floor_keeps_a_group_without_spread_from_blowing_up_a_penalty():
    group = [episode("a", [0, 0], invalid={0}), episode("a", [0])]
    assert_close(group_advantages(group, invalid_penalty=0.1, std_floor=1.0), [[-0.1, 0.0], [0.0]])
    assert_close(group_advantages(group, invalid_penalty=0.1, std_floor=0.5), [[-0.2, 0.0], [0.0]])


def test_floor_has_no_say_where_the_spread_is_larger():
    group = [episode("a", [10]), episode("a", [0])]
    assert group_advantages(group, std_floor=1.0) == group_advantages(group, std_floor=7.0)
    assert_close(group_advantages(group, std_floor=10.0), [[0.5], [-0.5]])


@pytest.mark.parametrize("error", [EndReason.ERROR_ENVIRONMENT, EndReason.ERROR_TOOL])
def test_an_episode_ended_by_an_error_has_no_advantage_and_enters_no_statistics(error):
    group = [episode("a", [10]), episode("a", [0])]
    broken = episode("a", [0, 1000], invalid={0}, end=error)
    found = group_advantages([group[0], broken, group[1]], invalid_penalty=0.1)
    assert found[1] == [0.0, 0.0]
    assert [found[0], found[2]] == group_advantages(group, invalid_penalty=0.1)


def test_a_group_with_one_valid_episode_has_no_advantage_not_even_a_penalty():
    group = [episode("a", [10, 0], invalid={1}), episode("a", [0], end=EndReason.ERROR_ENVIRONMENT)]
    assert group_advantages(group, invalid_penalty=0.1) == [[0.0, 0.0], [0.0]]


def test_an_episode_without_turns_counts_with_its_return_of_zero():
    group = [episode("a", [10]), episode("a", [], end=EndReason.CONTEXT_FULL)]
    assert group_advantages(group) == [pytest.approx([5 / math.sqrt(50)]), []]


@given(st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=4), min_size=2, max_size=8))
def test_advantages_of_a_group_balance_and_stay_within_its_size(rewards):
    found = group_advantages([episode("a", each) for each in rewards], std_floor=1e-3)
    firsts = [values[0] for values in found]
    assert sum(firsts) == pytest.approx(0.0, abs=1e-6)
    assert max(map(abs, firsts)) <= (len(rewards) - 1) / math.sqrt(len(rewards)) + 1e-6


def test_a_return_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="return of task 'a'"):
        group_advantages([episode("a", [math.nan]), episode("a", [0])])


def test_summary_counts_groups_once():
    episodes = [
        episode("equal", [0]), episode("equal", [0, 0]), episode("spread", [10]), episode("spread", [0]),
        episode("alone", [10]), episode("alone", [0], end=EndReason.ERROR_TOOL),
        episode("broken", [0], end=EndReason.ERROR_TOOL),
    ]  # fmt: skip
    assert equal_groups(episodes) == (1, 2)
    assert equal_groups([]) == (0, 0)


# The statistics of the paper's code ---------------------------------------------------------------------------------


def reference_code_loop(episodes, penalty):
    """The same in plain loops: a list of rows, each with its score; statistics over the rows of a task."""
    rows = []
    for i, e in enumerate(episodes):
        total = sum(turn.reward for turn in e.turns)
        rows += [(e.task.task_id, i, total - (0 if turn.valid else penalty)) for turn in e.turns]
    advantages = [[] for _ in episodes]
    for task, i, score in rows:
        group = [other for name, _, other in rows if name == task]
        mean, std = 0.0, 1.0
        if len(group) > 1:
            mean = sum(group) / len(group)
            std = (sum((other - mean) ** 2 for other in group) / (len(group) - 1)) ** 0.5
        advantages[i].append((score - mean) / (std + 1e-6))
    return advantages


def test_reference_code_golden_group_by_hand():
    group = [episode("a", [0, 0, 10], invalid={2}), episode("a", [0])]
    mean = (10 + 10 + 9.9 + 0) / 4
    variance = (2 * (10 - mean) ** 2 + (9.9 - mean) ** 2 + mean**2) / 3
    unit = math.sqrt(variance) + 1e-6
    assert_close(
        reference_code_advantages(group, invalid_penalty=0.1),
        [[(10 - mean) / unit, (10 - mean) / unit, (9.9 - mean) / unit], [-mean / unit]],
    )


def test_reference_code_statistics_of_a_single_row_are_zero_and_one():
    (found,) = reference_code_advantages([episode("a", [7], invalid={0})], invalid_penalty=0.1)
    assert found == pytest.approx([6.9 / (1 + 1e-6)])


def test_reference_code_penalties_alone_give_large_advantages_in_a_group_of_equal_returns():
    """One invalid row in 400 of an all-failed group: (n - 1) / n * 0.1 over 0.1 / sqrt(n) is about -20."""
    group = [episode("a", [0] * 200, invalid={3}), episode("a", [0] * 200)]
    assert reference_code_advantages(group, invalid_penalty=0.1)[0][3] == pytest.approx(-20, abs=0.1)
    assert group_advantages(group, invalid_penalty=0.1)[0][3] == pytest.approx(-0.1)


def test_reference_code_leaves_out_episodes_that_an_error_ended():
    group = [episode("a", [10]), episode("a", [0, 0]), episode("a", [3], end=EndReason.ERROR_TOOL)]
    assert_close(reference_code_advantages(group), [*reference_code_loop(group[:2], 0.0), [0.0]])
    (found,) = reference_code_advantages([episode("a", [3], end=EndReason.ERROR_TOOL)])
    assert found == [0.0]


def test_reference_code_refuses_a_return_that_is_not_finite():
    with pytest.raises(ValueError, match="is nan"):
        reference_code_advantages([episode("a", [math.nan])])


@given(st.data())
def test_reference_code_statistics_equal_plain_loops_on_ragged_groups(data):
    rewards = st.lists(st.sampled_from([0.0, 1.0, 10.0]), max_size=6)
    episodes = [
        episode(data.draw(st.sampled_from("abc")), data.draw(rewards), invalid=data.draw(st.sets(st.integers(0, 5))))
        for _ in range(data.draw(st.integers(1, 8)))
    ]
    found, expected = reference_code_advantages(episodes, invalid_penalty=0.1), reference_code_loop(episodes, 0.1)
    for values, other in zip(found, expected, strict=True):
        # A standard deviation of rounding errors instead of 0 is still below 1e-6.
        assert values == pytest.approx(other, rel=1e-6, abs=1e-6)
