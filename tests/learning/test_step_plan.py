"""The plan of the optimizer steps: deterministic, within the limit of tokens, every row exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.learning.method import LossAggregation, Method
from sdar.learning.optimizer import OptimizerSettings
from sdar.learning.step_plan import plan_reference_steps, plan_row_steps, plan_steps
from sdar.objective.objective import ObjectiveConfig
from sdar.rollout.settings import RolloutSettings

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def rows_of(steps):
    return [row for step in steps for micro_batch in step.micro_batches for row in micro_batch]


@given(lengths=lengths_lists, limit=st.integers(1, 400), size=st.none() | st.integers(1, 50))
def test_every_row_once_within_the_limit(lengths, limit, size):
    steps = plan_steps(lengths, episodes_per_step=size, max_tokens=limit)
    assert sorted(rows_of(steps)) == list(range(len(lengths)))
    for step in steps:
        for rows in step.micro_batches:
            assert rows
            assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= limit
    assert steps == plan_steps(list(lengths), episodes_per_step=size, max_tokens=limit)


@given(lengths=lengths_lists, size=st.integers(1, 50))
def test_steps_are_consecutive_and_of_nearly_equal_size(lengths, size):
    steps = plan_steps(lengths, episodes_per_step=size, max_tokens=10_000)
    assert len(steps) == -(-len(lengths) // size)
    assert [row for step in steps for row in step.rows] == list(range(len(lengths)))
    sizes = [len(step.rows) for step in steps]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_golden_plan_by_hand():
    (step,) = plan_steps([3, 9, 4, 8, 2], episodes_per_step=None, max_tokens=16)
    assert step.micro_batches == [[1], [3, 2], [0, 4]]


def test_a_row_longer_than_the_limit_is_a_micro_batch_by_itself():
    (step,) = plan_steps([3, 9, 4, 8, 2], episodes_per_step=None, max_tokens=8)
    assert step.micro_batches == [[1], [3], [2, 0], [4]]
    (step,) = plan_row_steps([3, 9, 4, 8, 2], steps=1, max_tokens=1)
    assert step.micro_batches == [[1], [3], [2], [0], [4]]


def test_rows_of_similar_length_share_a_micro_batch():
    (step,) = plan_steps([5, 50] * 8, episodes_per_step=None, max_tokens=200)
    padded = sum(len(rows) * max(5 if row % 2 == 0 else 50 for row in rows) for rows in step.micro_batches)
    assert padded == 8 * 5 + 8 * 50


def test_rows_with_nothing_to_score_are_in_no_micro_batch_but_count_as_episodes():
    steps = plan_steps([0, 0, 7, 0], episodes_per_step=2, max_tokens=10)
    assert [step.micro_batches for step in steps] == [[], [[2]]]


def test_rows_of_one_episode_stay_in_one_step():
    steps = plan_steps([5] * 7, episodes_per_step=2, max_tokens=10, episode_index=[0, 0, 0, 1, 1, 2, 3])
    assert [step.rows for step in steps] == [[0, 1, 2, 3, 4], [5, 6]]


def test_no_rows_make_no_step():
    assert plan_steps([], episodes_per_step=None, max_tokens=10) == []
    assert plan_steps([], episodes_per_step=4, max_tokens=10) == []


@pytest.mark.parametrize("setting", ["episodes_per_step", "rows_per_step", "max_tokens_per_micro_batch"])
def test_settings_out_of_range_are_named_with_their_value(setting):
    with pytest.raises(UserError, match=rf"OptimizerSettings\.{setting} must be a whole number >= 1.*, got 0"):
        OptimizerSettings(**{setting: 0})


ragged = st.lists(st.integers(0, 60), max_size=40)


@given(ranks=st.lists(ragged, min_size=1, max_size=3), size=st.integers(1, 50))
def test_steps_by_rows_are_equally_many_on_every_rank_and_take_every_row_once_in_order(ranks, size):
    """As the module plans them: the number of steps from the rows of all ranks, each rank cutting its own."""
    total = sum(length > 0 for lengths in ranks for length in lengths)
    steps = -(-total // size)
    for lengths in ranks:
        plan = plan_row_steps(lengths, steps=steps, max_tokens=100)
        assert len(plan) == steps
        assert [row for step in plan for row in step.rows] == [i for i, n in enumerate(lengths) if n > 0]
        sizes = [len(step.rows) for step in plan]
        assert max(sizes, default=0) - min(sizes, default=0) <= 1
        for step in plan:
            for rows in step.micro_batches:
                assert len(rows) * max(lengths[row] for row in rows) <= 100
    together = [sum(len(plan_row_steps(n, steps=steps, max_tokens=100)[k].rows) for n in ranks) for k in range(steps)]
    assert all(rows <= size + len(ranks) - 1 for rows in together)


def test_golden_reference_plan_by_hand():
    """Rows in order; the last step is shorter, and so is its last micro-batch. Rows without ids are in none."""
    plan = plan_reference_steps([3, 1, 0, 9, 2, 5, 4, 1, 7, 8], steps=3, rows_per_step=4, micro_batch_rows=2)
    assert [step.micro_batches for step in plan] == [[[0, 1], [3, 4]], [[5, 6], [7, 8]], [[9]]]
    longer = plan_reference_steps([1], steps=3, rows_per_step=4, micro_batch_rows=2)
    assert [step.micro_batches for step in longer] == [[[0]], [], []]


@given(lengths=ragged, micro=st.integers(1, 5), parts=st.integers(1, 5))
def test_reference_steps_are_consecutive_rows(lengths, micro, parts):
    rows = [i for i, n in enumerate(lengths) if n > 0]
    size = micro * parts
    plan = plan_reference_steps(lengths, steps=-(-len(rows) // size), rows_per_step=size, micro_batch_rows=micro)
    assert [[row for part in step.micro_batches for row in part] for step in plan] == [
        rows[start : start + size] for start in range(0, len(rows), size)
    ]
    assert all(len(part) == micro for step in plan for part in step.micro_batches[:-1])


def check(kind="reference_code", micro_batch_rows=4, context="window", **steps):
    """Refuse GRPO with these steps, or not."""
    method = Method(
        objective=ObjectiveConfig(distillation_coefficient=0),
        score_teacher=False,
        aggregation=LossAggregation(kind=kind, micro_batch_rows=micro_batch_rows),
    )
    method.check(None, RolloutSettings(context=context), OptimizerSettings(**({"rows_per_step": 8} | steps)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": "append"}, "loss_aggregation=reference_code.*rollout.context=append; set rollout=window"),
        ({"rows_per_step": None}, "optimizer.rows_per_step.*multiple of loss_aggregation.micro_batch_rows=4.*got null"),
        ({"rows_per_step": 6}, "optimizer.rows_per_step.*multiple of loss_aggregation.micro_batch_rows=4.*got 6"),
        ({"micro_batch_rows": None}, "multiple of loss_aggregation.micro_batch_rows=None"),
        ({"episodes_per_step": 2}, "optimizer.rows_per_step=8 and optimizer.episodes_per_step=2.*set one of them"),
        ({"kind": "token_mean"}, "loss_aggregation.micro_batch_rows=4 is for loss_aggregation=reference_code"),
        ({"kind": "mine"}, "LossAggregation.kind must be 'token_mean' or 'reference_code', got 'mine'"),
    ],
)
def test_steps_that_make_no_sense_are_refused(changes, message):
    check()
    check(kind="token_mean", micro_batch_rows=None, context="append")
    with pytest.raises(UserError, match=message):
        check(**changes)
