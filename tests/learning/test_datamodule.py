from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar.callbacks.checkpoints import Checkpoints
from sdar.errors import RunFailed, UserError
from sdar.learning.datamodule import sample_tasks
from sdar.learning.ranks import Ranks
from toys.training import (
    LettersEnvironment,
    Memory,
    same_weights,
    toy_datamodule,
    toy_module,
    toy_policy,
    toy_trainer,
    weights,
)

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


class Sometimes(LettersEnvironment):
    """Raises at the first step of every episode of the given iterations, counted by the pools that were opened."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad
        self.opened = -1

    def open_pool(self):
        self.opened += 1
        if self.opened in self.bad:
            raise OSError("the server is gone")
        return super().open_pool()


def toy_run(bad, iterations, tmp_path, **settings):
    """Trains with an environment that fails in some iterations; what is left of it."""
    policy = toy_policy()
    data = toy_datamodule(policy, environment=Sometimes(bad), **settings)
    module, memory = toy_module(policy, distillation_coefficient=0), Memory()
    trainer = toy_trainer(
        iterations, logger=memory, callbacks=[Checkpoints(directory=tmp_path)], enable_checkpointing=True
    )
    try:
        trainer.fit(module, datamodule=data)
        error = None
    except RunFailed as failed:
        error = str(failed)
    return data, memory, error, weights(module)


def test_a_run_whose_episodes_mostly_fail_stops_and_its_last_checkpoint_is_the_last_good_one(tmp_path):
    data, memory, error, _ = toy_run({1, 3, 4}, 9, tmp_path, max_bad_iterations=2)
    assert error == (
        "training stopped in iteration 5: more than 50% of the episodes ended by errors in 2 iterations in a row "
        "(rollout.max_bad_iterations=2), 12 of 12 in this one, the first: task "
        f"{data.collect(3).tasks[0].task_id}: OSError: the server is gone; mend the environment and continue after "
        "iteration 3 with ckpt_path=last"
    )
    assert data.bad_iterations == 2
    assert sorted(memory.steps) == [0, 1, 2, 3]
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["epoch"] + 1 == 3


def test_an_iteration_of_which_no_episode_counts_moves_no_weight(tmp_path):
    once, _, _, after_one = toy_run(set(), 1, tmp_path / "a")
    twice, memory, error, after_two = toy_run({1}, 2, tmp_path / "b")
    assert (error, twice.bad_iterations, once.bad_iterations) == (None, 1, 0)
    assert memory.steps[1]["rollout/end/error_environment"] == 1.0
    assert same_weights(after_one, after_two)


def test_a_run_that_fails_from_its_first_iteration_says_so(tmp_path):
    _, _, error, _ = toy_run(set(range(9)), 9, tmp_path)
    assert "iteration 3: more than 50%" in error
    assert error.endswith("mend the environment and start again")


def test_errors_are_counted_over_all_ranks_and_may_be_borne_with():
    class Two(Ranks):
        """This rank, and another one none of whose episodes failed."""

        def gather(self, values):
            return [*values, (0, 36, None, True)]

    data = toy_datamodule(toy_policy(), environment=Sometimes({0}), max_error_fraction=0.25)
    data.judge(data.collect(0), Two())
    assert data.bad_iterations == 0
    data = toy_datamodule(toy_policy(), environment=Sometimes({0}), max_error_fraction=0.2, max_bad_iterations=None)
    data.judge(data.collect(0), Two())
    assert data.bad_iterations == 1
    data.judge(data.collect(1), Two())
    assert data.bad_iterations == 0


def test_an_iteration_without_a_response_is_an_error():
    """Nothing could be learned from it, nor from those that follow."""
    policy = toy_policy()
    policy.context_tokens = 8
    data = toy_datamodule(policy)
    with pytest.raises(
        RunFailed, match=r"^training stopped in iteration 1: none of its 12 episodes has a response; .* of 8 tokens$"
    ):
        data.judge(data.collect(0), Ranks())
