from __future__ import annotations

import json
from itertools import pairwise

import pytest

from sdar.callbacks.episode_log import EpisodeLog
from sdar.learning.datamodule import Iteration
from toys.training import HintTeacher, LettersEnvironment, toy_datamodule, toy_module, toy_policy, train


def records(folder, iterations=2, teacher=None, environment=None, **settings):
    policy = toy_policy()
    module = toy_module(policy, teacher, **({} if teacher else {"distillation_coefficient": 0.0}))
    data = toy_datamodule(policy, environment=environment)
    first = data.collect(0).episodes
    train(module, data, iterations, callbacks=[EpisodeLog(folder, **settings)])
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()], first


def test_so_many_episodes_of_every_iteration_are_written(tmp_path):
    lines, first = records(tmp_path / "new", episodes_per_iteration=3)
    assert [line["iteration"] for line in lines] == [0, 0, 0, 1, 1, 1]
    played = {(e.task.task_id, e.member): e for e in first}
    for line in lines[:3]:
        episode = played[line["task"], line["member"]]
        assert line["return"] == episode.episode_return
        assert line["end"] == episode.end.value
        assert [t["text"] for t in line["turns"]] == [t.response_text for t in episode.turns]
        assert [t["valid"] for t in line["turns"]] == [t.valid for t in episode.turns]
    assert len({line["task"] for line in lines[:3]}) == 3


def test_token_gaps_belong_to_the_tokens_of_the_turn(tmp_path):
    lines, _ = records(tmp_path, teacher=HintTeacher(), token_gaps=True)
    for line in lines:
        for turn in line["turns"]:
            assert len(turn["tokens"]) == len(turn["gaps"]) > 0
            spoken = "".join(turn["tokens"]).removesuffix("<|im_end|>")
            # A token may be a part of a letter, which cannot be shown alone.
            assert spoken == turn["text"] or "\ufffd" in spoken
    assert any(gap != 0 for line in lines for turn in line["turns"] for gap in turn["gaps"])


def test_without_a_teacher_there_are_no_gaps(tmp_path):
    lines, _ = records(tmp_path, token_gaps=True)
    assert all("gaps" not in turn for line in lines for turn in line["turns"])


def test_an_episode_ended_by_an_error_says_which(tmp_path):
    lines, _ = records(
        tmp_path, iterations=1, environment=LettersEnvironment(4, broken=True), episodes_per_iteration=12
    )
    assert len(lines) == 12
    errors = [line for line in lines if line["end"] == "error_environment"]
    assert len(errors) == 3
    assert all("this task is broken" in line["error"] for line in errors)


@pytest.fixture(scope="module")
def trained():
    """A module after one iteration, and that iteration, of 12 episodes."""
    policy = toy_policy()
    module, data = toy_module(policy, distillation_coefficient=0.0), toy_datamodule(policy)
    first = data.collect(0)
    train(module, data, 1)
    return module, first


@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_the_episodes_of_an_iteration_are_different_and_others_follow_in_the_next(count, trained, tmp_path):
    module, played = trained
    log = EpisodeLog(tmp_path, episodes_per_iteration=count)
    for index in range(20):
        log.on_iteration(module.trainer, module, Iteration(index, played.episodes, {}, played.tasks))
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    known = {(e.task.task_id, e.member) for e in played.episodes}
    written = [{(x["task"], x["member"]) for x in lines if x["iteration"] == index} for index in range(20)]
    assert len(lines) == 20 * min(count, 12)
    assert [len(each) for each in written] == [min(count, 12)] * 20
    assert all(each <= known for each in written)
    if 0 < count < 12:
        assert all(each != later for each, later in pairwise(written))
        assert set().union(*written) == known
