from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.learning.datamodule import sample_tasks
from toys.training import LettersEnvironment, toy_datamodule, toy_policy, toy_trainer

TASKS = LettersEnvironment(tasks=17).tasks("train")


@given(count=st.integers(1, 17), seed=st.integers(0, 99), iteration=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_tasks_of_an_iteration_are_different_and_depend_on_seed_and_iteration_alone(count, seed, iteration):
    drawn = sample_tasks(TASKS, count, seed=seed, iteration=iteration)
    assert len({task.task_id for task in drawn}) == count
    assert drawn == sample_tasks(TASKS, count, seed=seed, iteration=iteration)


def test_task_types_appear_equally_often():
    types = Counter(task.task_type for i in range(30) for task in sample_tasks(TASKS, 4, seed=0, iteration=i))
    assert set(types.values()) == {40}


def test_iterations_draw_different_tasks():
    draws = {tuple(task.task_id for task in sample_tasks(TASKS, 4, seed=0, iteration=i)) for i in range(20)}
    assert len(draws) > 15


def test_ranks_play_together_what_one_process_plays():
    data = toy_datamodule(toy_policy())
    alone = data.collect(3)
    first, second = (data.collect(3, rank=rank, world_size=2) for rank in range(2))

    def played(iteration):
        return {(e.task.task_id, e.member): [t.response_ids for t in e.turns] for e in iteration.episodes}

    assert played(alone) == played(first) | played(second)
    assert {e.task.task_id for e in first.episodes}.isdisjoint(e.task.task_id for e in second.episodes)


def test_members_of_a_group_lie_side_by_side():
    episodes = toy_datamodule(toy_policy()).collect(0).episodes
    assert [e.member for e in episodes] == [0, 1, 2] * 4
    assert all(len({e.task.task_id for e in episodes[i : i + 3]}) == 1 for i in range(0, 12, 3))


def test_the_loader_has_one_item_which_is_the_trainers_epoch():
    data = toy_datamodule(toy_policy())
    data.trainer = toy_trainer(3)
    loader = data.train_dataloader()
    assert len(loader) == 1
    (iteration,) = list(loader)
    assert iteration.index == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 1}, "group_size must be a whole number >= 2, got 1"),
        ({"tasks": 0}, "tasks_per_iteration must be a whole number >= 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        toy_datamodule(toy_policy(), **settings)


def test_more_tasks_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"tasks_per_iteration must be <= 9, the number of training tasks, got 10"):
        toy_datamodule(toy_policy(), tasks=10).setup("fit")
