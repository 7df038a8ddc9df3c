"""Promises of continuing a run: which checkpoint is taken, what is skipped, and what differs is told."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from sdar.episode import Task
from sdar.errors import NothingToDo, UserError
from sdar.policy.checkpoint_file import share_file, write_checkpoint
from sdar.run.continuing import SETTINGS_KEY, contents, differences, other_contents, take_curves, told
from sdar.run.folder import occupied
from sdar.run.identity import IDENTITY_VERSION, config_hash
from sdar.run.resume import find_checkpoint
from sdar.skills.library import SHIPPED
from toys.runs import settings_of

MakeRun = Callable[..., Path]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return settings_of() | {"logs_dir": str(tmp_path), "ckpt_path": "last"}


@pytest.fixture
def make_run(tmp_path: Path, settings: dict[str, Any]) -> MakeRun:
    """A run with whole checkpoints of some iterations, of which the last has a second name."""

    def make(name: str, *iterations: int) -> Path:
        folder = tmp_path / name / "checkpoints"
        for iteration in iterations:
            path = folder / f"iteration-{iteration:04d}.ckpt"
            write_checkpoint({"epoch": iteration}, path)
            share_file(path, folder / "last.ckpt")
        record = {"config_hash": config_hash(settings), "identity_version": IDENTITY_VERSION, "started": name}
        (tmp_path / name / "run.json").write_text(json.dumps(record))
        return folder

    return make


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_last_is_the_newest_of_the_newest_run(make_run: MakeRun, settings: dict[str, Any]) -> None:
    make_run("2025", 9)
    newest = make_run("2026", 1, 2)
    assert find_checkpoint(settings) == newest / "last.ckpt"


def test_what_is_damaged_is_skipped_and_named(
    make_run: MakeRun, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    older, newest = make_run("2025", 9), make_run("2026", 1, 2, 3)
    spoil(newest / "iteration-0003.ckpt")  # and so last.ckpt
    with caplog.at_level(logging.WARNING, "sdar"):
        assert find_checkpoint(settings) == newest / "iteration-0002.ckpt"
    assert "ckpt_path=last: skipped" in caplog.text
    assert caplog.text.count("only in part") == 2
    for name in ("iteration-0001.ckpt", "iteration-0002.ckpt"):
        spoil(newest / name)
    assert find_checkpoint(settings) == older / "last.ckpt"
    spoil(older / "last.ckpt")
    with pytest.raises(UserError, match="ckpt_path=last: no checkpoint is whole: "):
        find_checkpoint(settings)


def test_a_run_without_the_name_last_has_its_newest(make_run: MakeRun, settings: dict[str, Any]) -> None:
    folder = make_run("2026", 1, 2)
    (folder / "last.ckpt").unlink()
    assert find_checkpoint(settings) == folder / "iteration-0002.ckpt"


def test_checkpoints_of_another_run_in_a_shared_folder_are_skipped_and_named(
    tmp_path: Path, settings: dict[str, Any], make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run("2026").parent if (tmp_path / "2026").mkdir() is None else tmp_path
    shared = tmp_path / "shared"
    directory = {"callbacks": {"checkpoint": {"directory": str(shared)}}, "run_dir": str(run)}
    (run / "config.yaml").write_text(json.dumps(directory))
    write_checkpoint({"epoch": 1, SETTINGS_KEY: settings}, shared / "iteration-0001.ckpt")
    write_checkpoint({"epoch": 2, SETTINGS_KEY: settings | {"seed": 99}}, shared / "last.ckpt")
    with caplog.at_level(logging.WARNING, "sdar"):
        assert find_checkpoint(settings) == shared / "iteration-0001.ckpt"
    assert "last.ckpt (of another run)" in caplog.text


def test_a_job_that_is_started_once_more_has_nothing_to_do(make_run: MakeRun, settings: dict[str, Any]) -> None:
    folder = make_run("2026", 1)
    trained = {"loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 3}}}}}
    write_checkpoint(trained, folder / "last.ckpt")
    requeued = settings | {"ckpt_path": "last_or_new", "trainer": settings["trainer"] | {"max_epochs": 3}}
    assert find_checkpoint(requeued) == folder / "last.ckpt"  # its final table is still to be played
    (folder.parent / "results.json").write_text("{}")
    with pytest.raises(NothingToDo, match=f"{folder.parent}, which has ended after 3 of 3 iterations: nothing is left"):
        find_checkpoint(requeued)
    with pytest.raises(NothingToDo, match=r"^$"):
        find_checkpoint(requeued, leader=False)  # the first process says it
    for others in ({"ckpt_path": "last"}, {"train": False}, {"trainer": requeued["trainer"] | {"max_epochs": 4}}):
        assert find_checkpoint(requeued | others) == folder / "last.ckpt"


def test_a_run_that_is_still_running_is_not_continued(make_run: MakeRun, settings: dict[str, Any]) -> None:
    folder = make_run("2026", 1).parent
    with occupied(folder), pytest.raises(UserError, match="which is still running; stop it first"):
        find_checkpoint(settings)
    assert find_checkpoint(settings) == folder / "checkpoints" / "last.ckpt"


def test_an_evaluation_that_is_running_does_not_hold_up_the_run(make_run: MakeRun, settings: dict[str, Any]) -> None:
    folder = make_run("2025", 1).parent
    evaluating = make_run("2026", 1).parent
    shutil.rmtree(evaluating / "checkpoints")
    (evaluating / "config.yaml").write_text("train: false\n")
    with occupied(evaluating):
        assert find_checkpoint(settings) == folder / "checkpoints" / "last.ckpt"
        (evaluating / "config.yaml").write_text("train: true\n")
        with pytest.raises(UserError, match="which is still running; stop it first"):
            find_checkpoint(settings)


@pytest.mark.parametrize("name", ["running.lock", "config.yaml", "results.json", "other/run.json"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(make_run: MakeRun, settings: dict[str, Any], name: str) -> None:
    folder = make_run("2026", 1).parent
    (folder / "other").mkdir()
    os.mkfifo(folder / name)
    assert find_checkpoint(settings) == folder / "checkpoints" / "last.ckpt"


def test_what_differs_is_told_in_one_line_and_where_a_run_writes_does_not_count() -> None:
    was = settings_of() | {"run_dir": "a", "logs_dir": "b"}
    now = settings_of("optimizer.learning_rate=0.5", "gate.beta=3", "trainer.max_epochs=99", "gate=gap", "threads=1")
    found = differences(was, now)
    assert found["optimizer.learning_rate"][1] == 0.5
    assert list(found) == ["gate.beta", "optimizer.learning_rate", "trainer.max_epochs"]
    assert "gate.beta 5.0 -> 3, " in told(found)
    assert "\n" not in told(found)
    assert differences(was, was) == {}
    many = told({f"name{number}": [None, "x" * 1000] for number in range(100)})
    assert many.endswith("and 88 more")
    assert len(many) < 1500


def test_skills_and_tasks_that_changed_in_their_place_are_told(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "alfworld", tmp_path / "skills")
    settings = settings_of(f"skills={tmp_path / 'skills'}")
    tasks = [Task(f"train/{number}", "pick", "put a mug in desk", "train", str(number)) for number in range(3)]
    was = contents(settings, tasks)
    assert other_contents(was, contents(settings, tasks[::-1])) == {}
    skill = sorted((tmp_path / "skills").glob("*.md"))[0]
    skill.write_text(skill.read_text(encoding="utf-8") + "\nOr do something else.\n", encoding="utf-8")
    found = other_contents(was, contents(settings, tasks))
    assert list(found) == ["skills (content hash)"]
    assert re.search(r" skills \(content hash\) [0-9a-f]{12} -> [0-9a-f]{12}$", told(found))
    tasks[0] = replace(tasks[0], content_hash="another")
    assert len(other_contents(was, contents(settings, tasks))) == 2
    assert other_contents({}, contents(settings, tasks)) == {}  # a checkpoint of an earlier version says nothing


def damaged_record(file: Path, length: int, data: bytes) -> None:
    """A TensorBoard file with one whole record, as far as its sums say."""
    start = struct.pack("<Q", length)
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (start, data)]
    file.write_bytes(start + sums[0] + data + sums[1])


@pytest.mark.parametrize("damage", ["half", "no event", "too long", "pipe", "device"])
def test_curves_that_cannot_be_read_end_no_run(tmp_path: Path, damage: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with SummaryWriter(str(old / "tensorboard")) as writer:
        for step in range(6):
            writer.add_scalar("loss", step, step)
    (whole,) = (old / "tensorboard").iterdir()
    file = whole.with_name(f"{whole.name}.2")
    if damage == "half":
        file.write_bytes(whole.read_bytes()[:150])
    elif damage == "no event":
        damaged_record(file, 6, b"\xff\xff\xff\xff\x00x")
    elif damage == "too long":
        damaged_record(file, 2**62, b"x")
    elif damage == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    take_curves(old / "checkpoints" / "last.ckpt", new, time.time())
    events = EventAccumulator(str(new / "tensorboard")).Reload().Scalars("loss")
    assert [event.step for event in events][:6] == list(range(6))


def test_curves_go_on_where_the_checkpoint_was_made(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with SummaryWriter(str(old / "tensorboard")) as writer:
        for step in range(6):
            writer.add_scalar("loss", step, step, walltime=100.0 + step)
    saved = 102.5
    take_curves(old / "checkpoints" / "last.ckpt", new, saved)
    with SummaryWriter(str(new / "tensorboard")) as writer:
        for step in range(3, 6):
            writer.add_scalar("loss", 10 * step, step)
    events = EventAccumulator(str(new / "tensorboard")).Reload().Scalars("loss")
    assert {event.step: event.value for event in events} == {0: 0, 1: 1, 2: 2, 3: 30, 4: 40, 5: 50}
    before = EventAccumulator(str(old / "tensorboard")).Reload().Scalars("loss")
    assert [event.value for event in before] == [0, 1, 2, 3, 4, 5]
