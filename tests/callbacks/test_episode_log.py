from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise

import pytest

from sdar.callbacks import episode_log
from sdar.callbacks.episode_log import EpisodeLog
from sdar.learning.datamodule import Iteration
from sdar.look.episodes import Reading, read_episodes
from sdar.objective.gate import GapGate
from sdar.objective.schedule import Linear, Schedules
from toys.training import HintTeacher, LettersEnvironment, toy_datamodule, toy_module, toy_policy, train


def records(folder, iterations=2, teacher=None, environment=None, gate=None, schedules=None, **settings):
    policy = toy_policy()
    method = {} if teacher else {"distillation_coefficient": 0.0}
    method |= {} if gate is None else {"gate": gate}
    method |= {} if schedules is None else {"schedules": schedules}
    module = toy_module(policy, teacher, **method)
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
    lines, _ = records(tmp_path, teacher=HintTeacher())
    for line in lines:
        for turn in line["turns"]:
            assert len(turn["tokens"]) == len(turn["gaps"]) > 0
            spoken = "".join(turn["tokens"]).removesuffix("<|im_end|>")
            # A token may be a part of a letter, which cannot be shown alone.
            assert spoken == turn["text"] or "\ufffd" in spoken
    assert any(gap != 0 for line in lines for turn in line["turns"] for gap in turn["gaps"])


def test_without_a_teacher_there_are_no_gaps(tmp_path):
    lines, _ = records(tmp_path / "none")
    assert all("gaps" not in turn for line in lines for turn in line["turns"])
    lines, _ = records(tmp_path / "off", teacher=HintTeacher(), token_gaps=False)
    assert all("tokens" not in turn for line in lines for turn in line["turns"])


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


def test_the_figures_of_a_token_belong_together(tmp_path):
    lines, _ = records(tmp_path, teacher=HintTeacher(), gate=GapGate(beta=20.0), episodes_per_iteration=12)
    turns = [turn for line in lines for turn in line["turns"]]
    for turn in turns:
        assert len({len(turn[name]) for name in ("tokens", "student", "teacher", "gates", "gaps")}) == 1
        assert turn["gaps"] == pytest.approx(
            [t - s for t, s in zip(turn["teacher"], turn["student"], strict=True)], abs=0.0011
        )
        assert turn["gates"] == pytest.approx([1 / (1 + math.exp(-20 * gap)) for gap in turn["gaps"]], abs=0.002)
        assert max(turn["student"]) <= 0 >= max(turn["teacher"])
    assert max(abs(gate - 0.5) for turn in turns for gate in turn["gates"]) > 0.1


def test_the_gate_of_a_token_has_the_slope_of_its_iteration(tmp_path):
    lines, _ = records(tmp_path, teacher=HintTeacher(), schedules=Schedules(beta=Linear(1.0, 0.0, 1)))
    gates = [[gate for turn in line["turns"] for gate in turn["gates"]] for line in lines]
    assert any(gate != 0.5 for gate in gates[0])
    assert set(gates[-1]) == {0.5}


def test_the_siblings_of_an_episode_stand_in_its_line(tmp_path):
    lines, first = records(tmp_path, iterations=1, episodes_per_iteration=12)
    own = {(x["task"], x["member"]): [turn["advantage"] for turn in x["turns"]] for x in lines}
    for line in lines:
        others = [e for e in first if e.task.task_id == line["task"] and e.member != line["member"]]
        assert [s["member"] for s in line["group"]] == [e.member for e in others]
        assert [s["actions"] for s in line["group"]] == [[t.action for t in e.turns] for e in others]
        assert [(s["return"], s["end"], s["success"]) for s in line["group"]] == [
            (e.episode_return, e.end.value, e.success) for e in others
        ]
        means = [statistics.fmean(own[line["task"], s["member"]]) for s in line["group"]]
        assert [s["advantage"] for s in line["group"]] == pytest.approx(means, abs=1e-3)


def test_a_line_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(episode_log, "MOST_TOKENS", 4)
    monkeypatch.setattr(episode_log, "MOST_SIBLINGS", 1)
    monkeypatch.setattr(episode_log, "MOST_ACTIONS", 1)
    monkeypatch.setattr(episode_log, "LONGEST_ACTION", 2)
    lines, _ = records(tmp_path, teacher=HintTeacher(), episodes_per_iteration=12)
    for line in lines:
        assert sum(len(turn.get("tokens", ())) for turn in line["turns"]) <= 4
        assert "tokens" in line["turns"][0]
        assert [len(sibling["actions"]) for sibling in line["group"]] == [1]
        assert all(len(action) <= 2 for sibling in line["group"] for action in sibling["actions"])
    assert any("tokens" not in turn for line in lines for turn in line["turns"])


def test_figures_that_are_no_numbers_are_null(tmp_path):
    """A browser's JSON knows neither nan nor infinity."""
    policy = toy_policy()
    module, data = toy_module(policy, HintTeacher()), toy_datamodule(policy)
    iteration = data.collect(0)
    train(module, data, 1)
    module.report.prepared.batch.teacher_log_probs[:] = -math.inf
    EpisodeLog(tmp_path).on_iteration(module.trainer, module, iteration)
    text = (tmp_path / "episodes.jsonl").read_text()
    turn = json.loads(text.splitlines()[0], parse_constant=pytest.fail)["turns"][0]
    assert set(turn["teacher"]) == {None}
    assert set(turn["gates"]) == {0.0}


def test_the_browser_reads_what_is_written(tmp_path):
    lines, _ = records(tmp_path, iterations=1, teacher=HintTeacher(), episodes_per_iteration=12)
    reading = Reading()
    shown = list(read_episodes(tmp_path / "episodes.jsonl", reading))
    assert reading.damaged == 0
    assert [(e.task, e.member, len(e.siblings)) for e in shown] == [(x["task"], x["member"], 2) for x in lines]
    for episode, line in zip(shown, lines, strict=True):
        for turn, written in zip(episode.turns, line["turns"], strict=True):
            assert [gap / 1000 for gap in turn.tokens.gaps()] == pytest.approx(written["gaps"], abs=0.0011)
