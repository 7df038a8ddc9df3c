"""Promises of recorded panels: equal to the last bit, of nothing else than the same, and never in the way."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdar.environments.arithmetic.environment import ArithmeticEnvironment
from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.http_client import HttpRetriever
from sdar.episode import EndReason, Episode, Observation, Preface, Task, Tool, Turn
from sdar.evaluation import record
from sdar.evaluation.conditions import source_hash
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import Panel, make_panel
from sdar.evaluation.plain import from_plain, to_plain
from sdar.evaluation.record import PanelRecords
from sdar.evaluation.result import EvaluationResult
from sdar.policy.chat import Position
from sdar.rollout.collector import Collector
from sdar.rollout.sampling import generators
from sdar.rollout.settings import DecodeSettings, SamplingConfig
from toys.rollouts import FactoryOfFakes
from toys.training import LettersEnvironment, toy_policy, toy_rollout

PANEL = make_panel(LettersEnvironment(), "valid", 6, 0)


def letters(policy: Any = None, **settings: Any) -> Collector:
    return Collector(policy or toy_policy(), LettersEnvironment(), toy_rollout(temperature=0.4, **settings))


def refusing(policy: Any, sampling: SamplingConfig) -> Any:
    raise AssertionError("nothing was to be played")


def play(records: PanelRecords | None, collector: Collector | None = None, **settings: Any) -> EvaluationResult:
    return evaluate(collector or letters(), PANEL, **({"seed": 0, "records": records} | settings))


@pytest.fixture
def records(tmp_path: Path) -> PanelRecords:
    return PanelRecords(tmp_path / "panels", {"versions": {"torch": "1"}})


def files(records: PanelRecords) -> list[Path]:
    return sorted(records.folder.iterdir())


@pytest.mark.parametrize("text", [None, "Hint: say bbb.\n\n"])
@pytest.mark.parametrize("context", ["append", "window"])
def test_a_record_stands_for_playing(records: PanelRecords, context: str, text: str | None) -> None:
    told = None if text is None else lambda task: f"{text}{task.task_id}"
    played = play(None, letters(context=context), privileged=told)
    drawn = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())
    first = play(records, letters(context=context), privileged=told)
    assert drawn == (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())
    silent = letters(context=context)
    silent.generator_factory = refusing
    again = play(records, silent, privileged=told)
    assert [first.recorded, again.recorded] == [False, True]
    for found in (first, again):
        assert found == played
        assert found.episodes == played.episodes
        assert repr(found.episodes) == repr(played.episodes)  # 1 is not 1.0, nor a list a tuple
        assert found.metrics("val") == played.metrics("val")


def changed_weights() -> Collector:
    policy = toy_policy()
    with torch.no_grad():
        weight = next(policy.model.parameters())
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    return letters(policy)


def computing_in_16_bits() -> Collector:
    policy = toy_policy()
    policy.compute_dtype = torch.bfloat16
    return letters(policy)


def other_tokenizer() -> Collector:
    policy = toy_policy()
    policy.tokenizer.chat_template += " "
    return letters(policy)


def other_place() -> Collector:
    policy = toy_policy()
    policy.chat = policy.chat.at(Position.BEFORE_TEMPLATE)
    return letters(policy)


OTHERS: dict[str, tuple[Callable[[], Collector], dict[str, Any]]] = {
    "seed": (letters, {"seed": 1}),
    "name": (letters, {"name": "val_with_skills"}),
    "text": (letters, {"privileged": lambda task: "say b"}),
    "share": (letters, {"rank": 1, "world_size": 2}),
    "one bit of a weight": (changed_weights, {}),
    "dtype": (lambda: letters(toy_policy(dtype=torch.bfloat16)), {}),
    "adapters": (lambda: letters(toy_policy(lora={"rank": 2})), {}),
    "chat template": (other_tokenizer, {}),
    "place of the text": (other_place, {}),
    "end tokens": (lambda: letters(replaced(toy_policy())), {}),
    "context": (lambda: letters(context="window"), {}),
    "history": (lambda: letters(history_turns=1), {}),
    "length of a prompt": (lambda: letters(max_prompt_tokens=100), {}),
    "waves": (lambda: letters(max_concurrent_episodes=5), {}),
    "decoding": (lambda: letters(decode=DecodeSettings(step="fixed")), {}),
    "precision": (computing_in_16_bits, {}),
    "sampling": (lambda: Collector(toy_policy(), LettersEnvironment(), toy_rollout(temperature=0.5)), {}),
    "reserved": (
        lambda: Collector(toy_policy(), LettersEnvironment(), toy_rollout(temperature=0.4), lambda task: 3),
        {},
    ),
}
"""What the episodes depend on, each changed alone."""


def replaced(policy: Any) -> Any:
    policy.chat = replace(policy.chat, end_ids=policy.chat.end_ids | {7})
    return policy


@pytest.mark.parametrize("what", OTHERS)
def test_a_record_is_of_nothing_else(records: PanelRecords, what: str) -> None:
    play(records)
    make, settings = OTHERS[what]
    assert not play(records, make(), **settings).recorded
    assert len(files(records)) == 2
    assert play(records, make(), **settings).recorded


def test_what_a_run_adds_and_threads_count(records: PanelRecords) -> None:
    play(records)
    assert not play(replace(records, terms={"versions": {"torch": "2"}})).recorded
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert not play(records).recorded
    finally:
        torch.set_num_threads(threads)
    assert play(records).recorded


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.rindex(b'"response_text":"') + 18
    content[place] ^= 1
    path.write_bytes(bytes(content))


def of_another_panel(path: Path) -> None:
    play(PanelRecords(path.parent, {}))
    (other,) = (file for file in path.parent.iterdir() if file != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        flip,
        of_another_panel,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04\x95"),
        lambda path: path.write_text("[]\n[]\n"),
        lambda path: path.write_text("{" * 100_000),
    ],
    ids=["cut", "flipped", "another panel", "empty", "pickle", "lists", "deep"],
)
def test_a_damaged_record_is_told_of_and_played_anew(
    records: PanelRecords, spoil: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    played = play(records)
    (path,) = files(records)
    spoil(path)
    with caplog.at_level(logging.WARNING, "sdar"):
        again = play(records)
    assert not again.recorded
    assert again.episodes == played.episodes
    assert str(path) in caplog.text
    assert "the panel is played" in caplog.text
    assert play(records).recorded  # and mended


@pytest.mark.parametrize("hindered", ["folder", "file"])
def test_what_cannot_be_written_is_in_nobodys_way(
    records: PanelRecords, hindered: str, caplog: pytest.LogCaptureFixture
) -> None:
    if hindered == "folder":
        records.folder.write_text("a file")
    else:
        place = records.place(letters(), PANEL.tasks, seed=0, key=("val", "val"), texts=None)
        (place.path / "in the way").mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "sdar"):
        assert play(records).n == 6
    assert "cannot be recorded" in caplog.text
    assert not list(records.folder.parent.rglob("*.part"))


def test_a_full_disk_leaves_no_half_record(records: PanelRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert play(records).n == 6
    assert files(records) == []


def test_panels_with_errors_are_not_recorded(records: PanelRecords) -> None:
    environment = LettersEnvironment(broken=True)
    collector = Collector(toy_policy(), environment, toy_rollout(temperature=0.4))
    panel = make_panel(environment, "valid", 9, 0)
    for _ in range(2):
        found = evaluate(collector, panel, seed=0, records=records)
        assert (found.errors, found.recorded) == (1, False)


def test_ranks_take_their_shares_from_records_together(records: PanelRecords) -> None:
    shares = [{"rank": rank, "world_size": 2} for rank in range(2)]
    play(records, **shares[0])
    assert not play(records, **shares[0], agree=lambda found: False).recorded  # the other rank has none
    play(records, **shares[1])
    assert all(play(records, **share, agree=lambda found: found).recorded for share in shares)


def test_records_that_were_used_longest_ago_make_room(records: PanelRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        before = set(files(records)) if seed else set()
        play(records, seed=seed)
        (path,) = set(files(records)) - before  # by itself: files of one moment may have the same date
        os.utime(path, (time.time() - 100 * (3 - seed),) * 2)
    assert play(records, seed=0).recorded  # used again
    (records.folder / "left.part").write_text("half")
    os.utime(records.folder / "left.part", (1.0, 1.0))
    size = max(file.stat().st_size for file in files(records))
    monkeypatch.setattr(record, "MOST_BYTES", 3 * size)
    play(records, seed=3)
    assert len(files(records)) == 3
    assert [play(records, seed=seed).recorded for seed in (0, 2, 3)] == [True] * 3


def test_two_runs_at_once_leave_one_whole_record(records: PanelRecords) -> None:
    episodes = play(None).episodes
    place = records.place(letters(), PANEL.tasks, seed=0, key=("val", "val"), texts=None)
    threads = [threading.Thread(target=lambda: [place.write(episodes) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert (place.read() or list(episodes)) == list(episodes)
    assert files(records) == [place.path]
    assert play(records).recorded


def test_only_what_has_a_name_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither code of one's own nor a server, nor another generator."""

    class Own(ArithmeticEnvironment):
        pass

    def found(environment: Any, **settings: Any) -> PanelRecords | None:
        return PanelRecords.of(Collector(toy_policy(), environment, toy_rollout(), **settings), {}, Path("x"))

    # Also where somebody edits the package while its tests run.
    monkeypatch.setattr("sdar.evaluation.conditions._IMPORTED", math.inf)
    arithmetic = ArithmeticEnvironment()
    assert found(arithmetic) is not None
    assert found(Own()) is None
    assert found(LettersEnvironment()) is None
    assert found(arithmetic, generator_factory=FactoryOfFakes()) is None
    assert found(arithmetic, generator_factory=generators(toy_rollout(decode=DecodeSettings(step="fixed")))) is not None
    assert found(SearchQAEnvironment()) is not None
    assert found(SearchQAEnvironment(search_engine=HttpRetriever(["http://127.0.0.1:9"]))) is None
    own = Collector(toy_policy(), arithmetic, toy_rollout())
    own.policy.model.append_module = torch.nn.Identity()
    assert PanelRecords.of(own, {}) is not None
    own.policy.model.append_module = type("Foreign", (torch.nn.Module,), {"__module__": "foreign.code"})()
    assert PanelRecords.of(own, {}) is None


def test_code_that_changed_while_the_run_was_starting_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector(toy_policy(), ArithmeticEnvironment(), toy_rollout())
    monkeypatch.setattr("sdar.evaluation.conditions._IMPORTED", 1.0)
    assert PanelRecords.of(collector, {}) is None


def test_a_change_of_code_counts_wherever_the_package_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pretrained" / "sdar"  # the name of a folder that is left out inside the package
    (package / "rollout").mkdir(parents=True)
    (package / "pretrained").mkdir()
    code, weights = package / "rollout" / "collector.py", package / "pretrained" / "model.py"
    for file in (package / "__init__.py", code, weights):
        file.write_text("a = 1\n")
    monkeypatch.setattr("sdar.__file__", str(package / "__init__.py"))
    found = []
    for file in (weights, code, code):
        source_hash.cache_clear()
        found.append(source_hash())
        file.write_text(file.read_text() + "b = 2\n")
    source_hash.cache_clear()
    assert found[0] == found[1]
    assert found[1] != found[2] != source_hash()
    source_hash.cache_clear()


def test_every_part_of_an_episode_comes_back() -> None:
    task = Task("a", "kind", "words", "valid", "hash", payload=object())
    seen = Observation("t\u2028\ud800", ("go", ""), "x", True)
    turn = Turn([1, 2], [3], "text", "act", True, seen, 0, True, -0.1, 2)
    bare = Turn([], [], "", "", False, Observation("", None, ""), None)
    tools = Preface("system", (Tool("look", "around", {"properties": {"at": {"type": "string"}}}),))
    whole = Episode(task, 1, [turn, bare], EndReason.SUCCESS, True, "open", {"b": 0.1, "a": 1e-300}, None, seen, False)
    whole.preface = tools
    failed = Episode(task, 0, [], EndReason.ERROR_TOOL, False, error="gone")
    found = from_plain(to_plain([whole, failed]), {"a": task})
    assert found == [whole, failed]
    assert repr(found) == repr([whole, failed])
    assert list(found[0].scores) == ["b", "a"]
    assert found[0].preface.tools[0].parameters == tools.tools[0].parameters
    with pytest.raises(TypeError, match="plain values, got object"):
        to_plain([object()])


def test_numbers_that_json_has_not_are_not_recorded(records: PanelRecords) -> None:
    place = records.place(letters(), PANEL.tasks, seed=0, key=("val", "val"), texts=None)
    episode = Episode(PANEL.tasks[0], 0, [], EndReason.FAILURE, False, scores={"f1": float("nan")})
    place.write([episode])
    assert place.read() is None
    place.write([replace(episode, scores={"f1": 1.0})])
    assert place.read() == [replace(episode, scores={"f1": 1.0})]


def test_the_panel_is_named_by_its_tasks(records: PanelRecords) -> None:
    """Another order makes other batches, and another content another game."""
    play(records)
    first, *others = PANEL.tasks
    for tasks in ((*others, first), (replace(first, content_hash="new"), *others)):
        panel = Panel(tasks, "valid", PANEL.content_hash)
        assert not evaluate(letters(), panel, seed=0, records=records).recorded
