"""Dynamic sampling: bounded, counted, the same on any number of ranks, and off when it is off."""

from __future__ import annotations

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.errors import UserError
from sdar.learning.datamodule import sample_tasks
from sdar.objective.advantage import has_spread
from sdar.rollout.dynamic import sample_groups
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.retrieval import NoRetrieval
from sdar.teacher.base import join
from sdar.teacher.context import SkillTeacher
from toys.training import LettersEnvironment, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

ON = {"resample_rounds": 2, "keep_equal_groups": False}


def task(name):
    return Task(name, "type", "do it", "train", name)


def group(name, returns):
    seen = Observation("", None, "")
    return [
        Episode(task(name), n, [Turn([1], [2], "", "", True, seen, reward=value or 0.0)],
                EndReason.ERROR_TOOL if value is None else EndReason.FAILURE, success=False)
        for n, value in enumerate(returns)
    ]  # fmt: skip


def player(outcomes):
    calls = []

    def play(tasks):
        calls.append([each.task_id for each in tasks])
        return [group(each.task_id, outcomes[each.task_id]) for each in tasks]

    return play, calls


ROUNDS = [[task(f"{place}{number}") for place in "abc"] for number in range(3)]


def test_groups_without_spread_make_place_until_they_have_one_or_rounds_run_out():
    outcomes = {"a0": [0, 1], "b0": [1, 1], "b1": [0, 3], "c0": [0, 0], "c1": [2, 2], "c2": [None, 5]}
    play, calls = player(outcomes)
    found = sample_groups(ROUNDS, play, keep_equal_groups=False)
    assert calls == [["a0", "b0", "c0"], ["b1", "c1"], ["c2"]]
    assert [members[0].task.task_id for members in found.groups] == ["a0", "b1", "c2"]
    assert [members[0].task.task_id for members in found.first] == ["a0", "b0", "c0"]
    assert (found.played, len(found.replaced), found.skipped) == (6, 3, 1)
    assert [[episode.in_loss for episode in members] for members in found.groups] == [
        [True] * 2,
        [True] * 2,
        [False] * 2,
    ]


def test_rounds_that_nobody_needs_are_not_played():
    play, calls = player({"a0": [0, 1], "b0": [1, 0], "c0": [0, 1]})
    assert sample_groups(ROUNDS, play, keep_equal_groups=False).replaced == []
    assert len(calls) == 1


def test_without_rounds_groups_are_kept_or_left_out():
    outcomes = {"a0": [0, 1], "b0": [1, 1], "c0": [0, 0]}
    for keep, skipped in ((True, 0), (False, 2)):
        found = sample_groups(ROUNDS[:1], player(outcomes)[0], keep_equal_groups=keep)
        assert (found.played, found.skipped) == (3, skipped)


def test_an_error_gives_no_spread():
    assert not has_spread(group("a", [None, 5]))
    assert has_spread(group("a", [None, 5, 0]))


def test_the_first_round_is_what_is_drawn_without_further_ones():
    tasks = LettersEnvironment(tasks=17).tasks("train")
    drawn = sample_tasks(tasks, 4, seed=1, iteration=3, rounds=4)
    assert drawn[:4] == sample_tasks(tasks, 4, seed=1, iteration=3)
    assert len({each.task_id for each in drawn}) == 16
    with pytest.raises(UserError, match=r"4 x 5 different tasks are needed, but there are only 17"):
        sample_tasks(tasks, 4, seed=1, iteration=3, rounds=5)


def test_more_rounds_than_there_are_tasks_for_are_refused():
    with pytest.raises(UserError, match=r"resample_rounds=4 may take 20 .* only 17 .* it must be <= 3"):
        toy_datamodule(toy_policy(), environment=LettersEnvironment(tasks=17), resample_rounds=4).setup("fit")


def data(policy, **settings):
    return toy_datamodule(policy, environment=LettersEnvironment(tasks=12), group_size=2, **settings)


def test_ranks_play_and_replace_together_what_one_process_does():
    def played(iteration):
        return {(e.task.task_id, e.member): ([t.response_ids for t in e.turns], e.in_loss) for e in iteration.episodes}

    for index in range(3):
        sampler = data(toy_policy(), **ON)
        alone = sampler.collect(index)
        parts = [sampler.collect(index, rank=rank, world_size=2) for rank in range(2)]
        assert played(alone) == played(parts[0]) | played(parts[1])
        assert alone.sampled.played == sum(part.sampled.played for part in parts)
        assert alone.sampled.skipped == sum(part.sampled.skipped for part in parts)
        assert alone.tasks == parts[0].tasks


def run(iterations=3, ckpt_path=None, callbacks=(), trainer=None, context="append", **sampling):
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0, context=context, episodes_per_step=4)
    memory = train(
        module, data(policy, context=context, **sampling), iterations, ckpt_path, callbacks=callbacks, **(trainer or {})
    )
    return module, memory.curve()


def test_it_is_counted_and_other_figures_stay_those_of_the_tasks_as_drawn():
    _, plain = run(iterations=1)
    _, curve = run(iterations=1, **ON)
    figures = curve[0]
    assert figures["rollout/groups_replaced"] > 0
    assert figures["rollout/groups_played"] == 4 + figures["rollout/groups_replaced"]
    for name in ("rollout/success_rate", "rollout/return_mean", "rollout/equal_group_fraction"):
        assert figures[name] == plain[0][name]
    assert "rollout/groups_played" not in plain[0]


def test_a_teacher_is_told_of_every_group_that_was_played_also_of_those_that_were_replaced():
    told = []

    class Listening(NoRetrieval):
        def observe(self, outcomes, solved_return):
            told.extend(outcomes)

    policy = toy_policy()
    library = SkillLibrary((Skill("basics", SkillKind.GENERAL, (), (), "Look first."),))
    teacher = SkillTeacher(library, Listening())
    sampler = data(policy, teacher=teacher, **ON)
    join(teacher, sampler.environment, policy)
    module = toy_module(policy, teacher, distillation_coefficient=0.5, episodes_per_step=4)
    curve = train(module, sampler, 1).curve()
    played = [outcome for outcome in told if outcome.episodes]
    assert len(played) == curve[0]["rollout/groups_played"] > 4
    assert [outcome.episodes for outcome in played] == [2] * len(played)


@pytest.mark.parametrize("context", ["append", "window"])
def test_groups_that_are_left_out_have_no_token_in_the_batch(context):
    module, curve = run(iterations=1, context=context, keep_equal_groups=False)
    prepared = module.report.prepared
    learned = set(prepared.batch.episode_index[prepared.batch.response_mask.any(dim=1)].tolist())
    assert curve[0]["rollout/groups_skipped"] == (8 - len(learned)) / 2 > 0


def test_a_resumed_run_has_the_curve_of_the_run_that_was_not_stopped(tmp_path):
    saving = {"enable_checkpointing": True}

    def last():
        return [ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, save_on_train_epoch_end=True)]

    whole, curve = run(iterations=3, **ON)
    _, first = run(iterations=2, callbacks=last(), trainer=saving, **ON)
    resumed, second = run(iterations=3, callbacks=last(), trainer=saving, ckpt_path=str(tmp_path / "last.ckpt"), **ON)
    assert first | second == curve
    assert same_weights(weights(whole), weights(resumed))


def test_rounds_below_zero_are_refused():
    with pytest.raises(UserError, match="resample_rounds must be a whole number >= 0, got -1"):
        data(toy_policy(), resample_rounds=-1)
