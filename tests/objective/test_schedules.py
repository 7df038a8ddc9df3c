"""Schedules: golden values, exact ends, bounds, and a controller whose state survives a checkpoint."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.objective.schedule import Constant, Cosine, Feedback, Linear, Schedules, Share, Step, WarmDown


def test_golden_values_by_hand():
    assert [Constant().factor(i) for i in (0, 7)] == [1.0, 1.0]
    assert [Linear(1.0, 3.0, 4).factor(i) for i in range(6)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]
    assert [Cosine(1.0, 0.0, 4).factor(i) for i in range(6)] == pytest.approx(
        [1.0, 0.853553, 0.5, 0.146447, 0.0, 0.0], abs=1e-6
    )
    assert [WarmDown(zero_at=6, hold=2).factor(i) for i in range(8)] == [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


@given(zero_at=st.integers(1, 10_000), data=st.data())
def test_the_warm_down_is_exactly_zero_from_the_stated_iteration_on_and_not_before(zero_at, data):
    schedule = WarmDown(zero_at=zero_at, hold=data.draw(st.integers(0, zero_at - 1)))
    assert schedule.factor(zero_at) == schedule.factor(zero_at + 1) == schedule.factor(10 * zero_at) == 0.0
    assert schedule.factor(zero_at - 1) > 0.0
    assert schedule.factor(0) == 1.0


@given(start=st.floats(0, 1e3), end=st.floats(0, 1e3), iterations=st.integers(1, 500), i=st.integers(0, 2000))
@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_both_ends_are_exact_and_nothing_lies_beyond_them(kind, start, end, iterations, i):
    schedule = kind(start, end, iterations)
    assert schedule.factor(0) == start
    assert schedule.factor(iterations) == schedule.factor(iterations + i) == end
    slack = 1e-9 * max(start, end)
    assert min(start, end) - slack <= schedule.factor(i) <= max(start, end) + slack


def test_feedback_follows_the_moving_average():
    controller = Feedback(target=0.5, gain=2.0, decay=0.5, minimum=0.0, maximum=1.5)
    assert controller.factor(0) == 1.0
    controller.observe(0.7)  # average 0.7
    assert controller.factor(1) == pytest.approx(1.4)
    controller.observe(0.1)  # 0.4
    assert controller.factor(2) == pytest.approx(0.8)
    controller.observe(1.0)  # 0.7
    controller.observe(1.0)  # 0.85: 1.7 is cut
    assert controller.factor(4) == 1.5


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(-10, 10))
def test_feedback_stays_within_its_bounds(activities, gain):
    controller = Feedback(gain=gain, minimum=0.2, maximum=1.7)
    for activity in activities:
        controller.observe(activity)
        assert 0.2 <= controller.factor(0) <= 1.7


def test_a_controller_continues_from_its_state():
    first, second = Feedback(), Feedback()
    for activity in (0.2, 0.4):
        first.observe(activity)
    second.load_state(first.state())
    first.observe(0.9)
    second.observe(0.9)
    assert first.factor(3) == second.factor(3)
    assert Feedback().state() == {}
    assert Constant().state() == {}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Constant(-1.0), "Constant.value must be a number >= 0, got -1.0"),
        (lambda: Linear(0.0, float("inf"), 3), "end must be a number >= 0, got inf"),
        (lambda: Linear(0.0, 1.0, 0), "iterations must be a whole number >= 1, got 0"),
        (lambda: Cosine(-0.5, 1.0, 3), "start must be a number >= 0, got -0.5"),
        (lambda: WarmDown(zero_at=3, hold=3), "zero_at must be > hold=3, got 3"),
        (lambda: WarmDown(zero_at=3, hold=-1), "WarmDown.hold must be a whole number >= 0, got -1"),
        (lambda: Feedback(target=1.5), "Feedback.target must be a number >= 0 and <= 1, got 1.5"),
        (lambda: Feedback(decay=1.0), "Feedback.decay must be a number >= 0 and < 1, got 1.0"),
        (lambda: Feedback(minimum=2.0, maximum=1.0), "minimum must be <= maximum=1.0, got 2.0"),
        (lambda: Feedback(gain=float("nan")), "Feedback.gain must be a number, got nan"),
    ],
)
def test_settings_without_meaning_are_refused(build, message):
    with pytest.raises(UserError, match=re.escape(message)):
        build()


def test_a_step_has_two_values():
    assert [Step(at=2).factor(i) for i in range(4)] == [0.0, 0.0, 1.0, 1.0]
    assert [Step(at=1, before=1.0, after=0.0).factor(i) for i in range(3)] == [1.0, 0.0, 0.0]


@given(
    units=st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=20),
    target=st.floats(0.01, 10),
    decay=st.floats(0, 0.9),
)
def test_a_share_reaches_its_target_where_the_gradients_keep_their_proportion(units, target, decay):
    schedule = Share(target=target, decay=decay, minimum=1e-9, maximum=1e9)
    assert schedule.factor(0) == 1.0
    for unit in units:  # what the share would be with a factor of 1
        schedule.observe(distillation_share=unit * schedule.factor(0))
        if decay == 0:
            assert schedule.factor(1) * unit == pytest.approx(target)
    for _ in range(400):
        schedule.observe(distillation_share=units[-1] * schedule.factor(0))
    assert schedule.factor(1) * units[-1] == pytest.approx(target, rel=1e-3)


def test_a_share_keeps_to_its_bounds_and_takes_no_note_of_what_was_not_measured():
    schedule = Share(target=1.0, decay=0.0, minimum=0.5, maximum=2.0)
    for nothing in (None, 0.0):
        schedule.observe(0.4, nothing)
        assert schedule.factor(0) == 1.0
    schedule.observe(distillation_share=100.0)
    assert schedule.factor(0) == 0.5
    schedule.observe(distillation_share=1e-6)
    assert schedule.factor(0) == 2.0


def test_all_schedules_of_a_method_continue_from_their_state_and_from_one_without_the_policys():
    def made():
        return Schedules(coefficient=Share(target=0.3), beta=Feedback())

    first, second, third = made(), made(), made()
    first.observe(0.7, 0.05)
    second.load_state(first.state())
    assert second.coefficient.factor(1) == first.coefficient.factor(1) != 1.0
    assert second.beta.factor(1) == first.beta.factor(1) != 1.0
    old = {name: state for name, state in first.state().items() if name != "policy"}
    third.load_state(old)
    assert third.state() == first.state()
