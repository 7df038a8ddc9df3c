"""Shaped advantages: golden against plain loops, bounded, sign-preserving, and off when they are off."""

import math
import re
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.errors import UserError
from sdar.objective.shaping import RLSD, AgentOPSD, ScoredTokens, belief_changes

NOTHING = Observation("", None, "")


def episode(task, lengths, *, success=False, end=EndReason.FAILURE, rewards=None):
    paid = [0.0] * len(lengths) if rewards is None else rewards
    turns = [Turn([1], [2] * n, "", "", True, NOTHING, reward=paid[k]) for k, n in enumerate(lengths)]
    return Episode(Task(task, "type", "do it", "train", "hash"), 0, turns, end, success)


def tokens(episodes, values, gaps):
    """``values``: advantage of every turn; ``gaps``: gaps of every turn's tokens."""
    rows = [(value, gap, i, k) for i in range(len(episodes)) for k, value in enumerate(values[i]) for gap in gaps[i][k]]
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    floats = [torch.tensor(column, dtype=torch.float32) for column in columns[:2]]
    return ScoredTokens(episodes, *floats, *(torch.tensor(column, dtype=torch.long) for column in columns[2:]))


numbers = st.floats(-4, 4, width=32)


@st.composite
def scored(draw):
    episodes, values, gaps = [], [], []
    for _ in range(draw(st.integers(1, 6))):
        error = draw(st.integers(0, 5)) == 0
        lengths = [0 if error else draw(st.integers(0, 3)) for _ in range(draw(st.integers(0, 4)))]
        success = draw(st.booleans()) and not error
        end = EndReason.ERROR_TOOL if error else EndReason.FAILURE
        rewards = [draw(st.sampled_from([0.0, 0.0, 0.5, 10.0])) for _ in lengths]
        episodes.append(episode(draw(st.sampled_from("ab")), lengths, success=success, end=end, rewards=rewards))
        values.append([draw(st.sampled_from([-1.5, 0.0, 0.5, 2.0])) for _ in lengths])
        gaps.append([[draw(numbers) for _ in range(n)] for n in lengths])
    return episodes, values, gaps


def rlsd_loop(episodes, values, gaps, weight, clip):
    result = []
    for i, turns in enumerate(gaps):
        for k, turn in enumerate(turns):
            for gap in turn:
                a = values[i][k]
                sign = (a > 0) - (a < 0)
                w = min(max(math.exp(sign * gap), 1 - clip), 1 + clip)
                result.append(a * ((1 - weight) + weight * w))
    return result


def public_factor(evidence, b0, signs, spread, gamma, deviation):
    """The belief's way through turns or tokens, as ZethWang/AgentOPSD at 0c478b2 computes it, with lists."""
    c, before, changes = 0.0, b0, []
    for gap in evidence:
        c = gamma * c + gap
        belief = min(max(1 / (1 + math.exp(-(math.log(b0 / (1 - b0)) + c))), 1e-6), 1 - 1e-6)
        changes.append(belief - before)
        before = belief
    mean = statistics.fmean(changes)
    divisor = deviation(statistics.pvariance(changes))
    return [
        min(max(1 + spread * sign * (change - mean) / divisor, 1 - spread), 1 + spread)
        for change, sign in zip(changes, signs, strict=True)
    ]


def public_loop(episodes, values, gaps, weight, spread, gamma, granularity):
    """compute_opsd_turn_advantage and compute_opsd_token_advantage with belief_mult and signed, episode by episode."""
    result = []
    for i, one in enumerate(episodes):
        group = [e for e in episodes if e.task.task_id == one.task.task_id and not e.end.is_error]
        sampled = [k for k, turn in enumerate(gaps[i]) if turn]
        if not sampled:
            continue
        signs = {k: (values[i][k] > 0) - (values[i][k] < 0) for k in sampled}
        b0 = min(max(statistics.fmean(e.episode_return for e in group), 1e-4), 1 - 1e-4)
        if granularity == "turn":
            evidence = [math.fsum(gaps[i][k]) for k in sampled]
            found = public_factor(
                evidence, b0, [signs[k] for k in sampled], spread, gamma, lambda variance: math.sqrt(variance) + 1e-6
            )
            factors = [[factor] * len(gaps[i][k]) for k, factor in zip(sampled, found, strict=True)]
        else:
            factors = [
                public_factor(
                    gaps[i][k],
                    b0,
                    [signs[k]] * len(gaps[i][k]),
                    spread,
                    gamma,
                    lambda variance: math.sqrt(variance + 1e-6) + 1e-6,
                )
                for k in sampled
            ]
        for k, turn in zip(sampled, factors, strict=True):
            result += [values[i][k] * ((1 - weight) + weight * factor) for factor in turn]
    return result


def group_loop(episodes, values, gaps, weight, spread, gamma):
    """Formulas of the source in the order they are printed, per group, with lists."""
    factor = {}
    for task in sorted({e.task.task_id for e in episodes}):
        members = [i for i, e in enumerate(episodes) if e.task.task_id == task and not e.end.is_error]
        if not members:
            continue
        rate = sum(episodes[i].success for i in members) / len(members)
        b0 = min(max(rate, 0.5 / len(members)), 1 - 0.5 / len(members))
        signed = {}
        for i in members:
            c, before = 0.0, b0
            for k, turn in enumerate(gaps[i]):
                c = gamma * c + math.fsum(turn)
                b = 1 / (1 + math.exp(-(math.log(b0 / (1 - b0)) + c)))
                a = values[i][k] if turn else 0.0
                signed[i, k] = ((a > 0) - (a < 0)) * (b - before)
                before = b
        deviation = statistics.stdev(signed.values()) if len(signed) > 1 else 0.0
        for key, value in signed.items():
            z = (value - statistics.fmean(signed.values())) / deviation if deviation > 1e-12 else 0.0
            factor[key] = min(max(1 + spread * z, 1 - spread), 1 + spread)
    return [
        values[i][k] * ((1 - weight) + weight * factor[i, k])
        for i, turns in enumerate(gaps)
        for k, turn in enumerate(turns)
        for _ in turn
    ]


def test_rlsd_by_hand():
    one = [episode("a", [3])]
    found = RLSD(weight=0.5, clip=0.2).factors(tokens(one, [[2.0]], [[[0.1, 5.0, -5.0]]]))
    assert found.tolist() == pytest.approx([math.exp(0.1), 1.2, 0.8])
    blamed = RLSD(weight=0.5, clip=0.2).factors(tokens(one, [[-2.0]], [[[0.1, 5.0, -5.0]]]))
    assert blamed.tolist() == pytest.approx([math.exp(-0.1), 0.8, 1.2])
    shaped = RLSD(weight=0.5, clip=0.2).shaped(tokens(one, [[-2.0]], [[[0.1, 5.0, -5.0]]]))
    assert shaped.tolist()[2] == pytest.approx(-2.2)


def test_beliefs_by_hand():
    """From even odds: evidence of ln 3 makes 3/4; half of it is left at the second turn."""
    changes = belief_changes([math.log(3), 0.0], 0.5, 0.5)
    assert changes == pytest.approx([0.25, math.sqrt(3) / (1 + math.sqrt(3)) - 0.75])


@given(scored(), st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.2, 1.0]))
def test_rlsd_equals_the_plain_loop(case, weight, clip):
    assert RLSD(weight, clip).shaped(tokens(*case)).tolist() == pytest.approx(
        rlsd_loop(*case, weight, clip), rel=1e-5, abs=1e-6
    )


weights = st.sampled_from([0.25, 1.0])
spreads = st.sampled_from([0.0, 0.2])


@given(scored(), weights, spreads, st.sampled_from([0.0, 0.95, 1.0]), st.sampled_from(["turn", "token"]))
def test_agent_opsd_equals_a_plain_loop_over_its_public_code(case, weight, spread, gamma, granularity):
    shaping = AgentOPSD(weight, spread, gamma, granularity=granularity)
    assert shaping.shaped(tokens(*case)).tolist() == pytest.approx(
        public_loop(*case, weight, spread, gamma, granularity), rel=1e-4, abs=1e-5
    )


def test_agent_opsd_by_hand_as_its_public_code():
    """Two turns with beliefs 1e-4 -> 1/2 -> 3/4: the first change is one deviation above the mean, the second below."""
    even, odds = math.log(9999), math.log(3)
    solved, failed = episode("a", [1, 2], rewards=[0, 0]), episode("a", [1], rewards=[0])
    gaps = [[[even], [odds / 2, odds / 2]], [[0.3]]]
    found = AgentOPSD().factors(tokens([solved, failed], [[1.0, 1.0], [-1.0]], gaps))
    assert found.tolist() == pytest.approx([1.2, 0.8, 0.8, 1.0], abs=1e-5)
    blamed = AgentOPSD().factors(tokens([solved, failed], [[-1.0, 0.0], [-1.0]], gaps))
    assert blamed.tolist() == pytest.approx([0.8, 1.0, 1.0, 1.0], abs=1e-5)


def test_the_first_belief_of_agent_opsd_is_the_groups_mean_return_within_bounds():
    """A reward of 10 for one success in eight is a belief of 1 - 1e-4; the same evidence then moves it little."""
    turns, gaps = [1, 1, 1], [[[1.0], [1.0], [-4.0]]]
    for reward, first in ((0.0, 1e-4), (0.5, 0.5), (10.0, 1 - 1e-4), (-3.0, 1e-4)):
        one = [episode("a", turns, rewards=[0, 0, reward])]
        found = AgentOPSD(spread=1.0).factors(tokens(one, [[1.0] * 3], gaps))
        changes = belief_changes([1.0, 1.0, -4.0], first, 1.0)
        mean, deviation = statistics.fmean(changes), statistics.pstdev(changes) + 1e-6
        expected = [min(max(1 + (change - mean) / deviation, 0), 2) for change in changes]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)


@given(scored(), weights, spreads, st.sampled_from([0.0, 0.95]))
def test_agent_opsd_over_the_group_equals_the_plain_loop(case, weight, spread, gamma):
    assert AgentOPSD(weight, spread, gamma, "group").shaped(tokens(*case)).tolist() == pytest.approx(
        group_loop(*case, weight, spread, gamma), rel=1e-4, abs=1e-5
    )


def test_tokens_have_no_statistics_over_the_group():
    with pytest.raises(UserError, match=r"granularity=token needs algorithm\.shaping\.statistics=reference_code"):
        AgentOPSD(statistics="group", granularity="token")


@given(scored())
def test_no_shaping_turns_credit_into_blame(case):
    given_tokens = tokens(*case)
    opsd = [AgentOPSD(1.0, 1.0, 1.0, *form) for form in (("group",), ("reference_code",), ("reference_code", "token"))]
    for shaping in (RLSD(1.0, 1.0), *opsd):
        factors = shaping.factors(given_tokens)
        assert factors.dtype == torch.float32
        assert ((factors >= 0) & (factors <= 2)).all()
        assert (shaping.shaped(given_tokens) * given_tokens.advantage >= 0).all()


@given(scored())
def test_weight_zero_leaves_every_bit(case):
    given_tokens = tokens(*case)
    for shaping in (RLSD(0.0), AgentOPSD(0.0), RLSD(0.5).scaled(0.0)):
        assert torch.equal(shaping.shaped(given_tokens), given_tokens.advantage)


def test_a_token_that_the_teacher_rules_out_is_clipped_like_any_other():
    found = RLSD().factors(tokens([episode("a", [2])], [[1.0]], [[[-1e5, 1e5]]]))
    assert found.tolist() == pytest.approx([0.8, 1.2])


def test_turns_of_an_episode_that_broke_have_no_part_in_the_group():
    pair = [episode("a", [1], success=True), episode("a", [1])]
    broken = episode("a", [0], end=EndReason.ERROR_TOOL)
    for form in ("group", "reference_code"):
        shaping = AgentOPSD(statistics=form)
        plain = shaping.factors(tokens(pair, [[1.0], [-1.0]], [[[0.5]], [[0.1]]]))
        found = shaping.factors(tokens([*pair, broken], [[1.0], [-1.0], [0.0]], [[[0.5]], [[0.1]], [[]]]))
        assert torch.equal(plain, found)


@pytest.mark.parametrize("size", range(2, 12))
def test_attempts_that_are_all_the_same_give_no_turn_more_credit_than_another(size):
    """Rounding makes of some numbers of equal changes of belief a deviation that is not exactly 0."""
    same = [episode("a", [1]) for _ in range(size)]
    for gap in (0.1, 0.3, -0.7, 1.1):
        found = AgentOPSD(statistics="group").factors(tokens(same, [[-0.1]] * size, [[[gap]]] * size))
        assert found.tolist() == [1.0] * size


def test_the_schedule_multiplies_the_weight_and_never_leaves_its_range():
    assert RLSD(0.5).scaled(0.5) == RLSD(0.25)
    assert RLSD(0.5).scaled(3.0).weight == 1.0


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [(RLSD, "weight", 1.5), (RLSD, "clip", -0.1), (AgentOPSD, "spread", 2.0), (AgentOPSD, "gamma", -1.0)],
)
def test_a_setting_out_of_range_is_named_with_its_value(kind, setting, value):
    message = f"{kind.__name__}.{setting} must be a number >= 0 and <= 1, got {value}"
    with pytest.raises(UserError, match=re.escape(message)):
        kind(**{setting: value})
