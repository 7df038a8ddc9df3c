"""The dataset's folders become games. Skipped trials are counted and damaged files are named."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdar.environments.alfworld.dataset import (
    DAMAGED,
    MAX_FILE_BYTES,
    NO_GAME,
    UNCHECKED,
    UNSOLVABLE,
    UNSUPPORTED,
    WRONG_TYPE,
    available_splits,
    list_games,
)
from sdar.environments.alfworld.engine import GameError
from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NativeEngine
from sdar.errors import UserError

GRAMMAR = 'grammar :: """ {"task": [{"rhs": "Your task is to: %s."}]} """; template :: "move {o} to {r}";'
TYPE = "pick_and_place_simple"
TASK = f"{TYPE}-Mug-None-Shelf-7"


def document(**changes: Any) -> dict[str, Any]:
    fields = {
        "pddl_domain": "(define (domain alfred))",
        "grammar": GRAMMAR % "put a mug in shelf",
        "pddl_problem": "(define (problem p))",
        "solvable": True,
        "walkthrough": ["look", "take mug 1 from desk 1"],
    }
    fields.update(changes)
    return {key: value for key, value in fields.items() if value is not None}


def add(
    root: Path, game: Any, task: str = TASK, trial: str = "trial_T1", split: str = "train", traj: Any = None
) -> Path:
    folder = root / "json_2.1.1" / split / task / trial
    folder.mkdir(parents=True)
    if game is not None:
        content = game if isinstance(game, bytes) else json.dumps(game).encode()
        (folder / "game.tw-pddl").write_bytes(content)
    if traj is not None:
        (folder / "traj_data.json").write_text(traj if isinstance(traj, str) else json.dumps(traj))
    return folder


def test_a_game_carries_what_its_file_says(tmp_path: Path) -> None:
    add(tmp_path, document())
    (entry,) = list_games(tmp_path, "train").entries
    game = entry.load()
    assert (game.game_id, game.task_type) == (f"train/{TASK}/trial_T1", "pick_and_place_simple")
    assert (game.task_text, game.problem) == ("put a mug in shelf", "(define (problem p))")
    assert game.walkthrough == entry.walkthrough == ("look", "take mug 1 from desk 1")
    assert game.split == "train"
    assert game.content_hash == entry.content_hash


def test_a_playable_file_plays_with_the_text_the_engine_prints(tmp_path: Path) -> None:
    drawn = HouseholdGenerator(GeneratorSettings()).game("train", 0)
    grammar = GRAMMAR % drawn.task_text
    add(tmp_path, document(grammar=grammar, pddl_problem=drawn.problem, walkthrough=list(drawn.walkthrough)))
    game = list_games(tmp_path, "train").entries[0].load()
    state, reply = NativeEngine().load(game).start()
    assert reply.text.endswith(f"Your task is to: {drawn.task_text}.")
    for command in game.walkthrough:
        reply = state.step(command)
    assert reply.won


@pytest.mark.parametrize("before", [r"\"Your task is to: ", r'"Your task is to: x\" " ', ""], ids=repr)
@pytest.mark.parametrize("old", ["", "put a in/on b" * 20_000 + "\n"], ids=["", "command"])
def test_large_files_take_time_in_proportion(tmp_path: Path, before: str, old: str) -> None:
    grammar = (GRAMMAR % "put a mug in shelf").replace("move {o} to {r}", "put {o} in/on {r}")
    add(tmp_path, document(grammar=before * 40_000 + grammar, walkthrough=[old, "put a in/on b in/on c"]))
    begun = time.process_time()  # a busy machine is no slower in this
    (entry,) = list_games(tmp_path, "train").entries
    assert time.process_time() - begun < 2
    assert (entry.task_text, entry.walkthrough) == ("put a mug in shelf", (old, "move a in/on b to c"))


def test_games_come_in_the_order_of_their_ids_whatever_the_file_system_says(tmp_path: Path) -> None:
    for task, trial in [(TASK, "b"), ("look_at_obj_in_light-Pen-None-DeskLamp-3", "z"), (TASK, "a"), (TASK, "B")]:
        add(tmp_path, document(), task, trial)
    ids = [entry.game_id for entry in list_games(tmp_path, "train").entries]
    assert ids == sorted(ids)
    assert len(ids) == 4


def test_the_task_type_is_that_of_the_trajectory_where_there_is_one(tmp_path: Path) -> None:
    add(tmp_path, document(), traj={"task_type": "pick_two_obj_and_place"})
    assert list_games(tmp_path, "train").entries[0].task_type == "pick_two_obj_and_place"


LEFT_OUT: list[tuple[str, Callable[[Path], object]]] = [
    (UNSUPPORTED, lambda root: add(root, document(), "pick_and_place_with_movable_recep-Mug-Plate-Shelf-1")),
    (UNSUPPORTED, lambda root: add(root, document(), "pick_and_place_simple-AppleSliced-None-Shelf-1")),
    (WRONG_TYPE, lambda root: add(root, document(), "pick_and_juggle-Mug-None-Shelf-1")),
    (WRONG_TYPE, lambda root: add(root, document(), traj={"task_type": "pick_and_juggle"}, trial="t2")),
    (WRONG_TYPE, lambda root: add(root, document(), traj={}, trial="t2")),
    (UNSOLVABLE, lambda root: add(root, document(solvable=False), trial="t2")),
    (UNCHECKED, lambda root: add(root, document(solvable=None), trial="t2")),
    (UNCHECKED, lambda root: add(root, document() | {"solvable": None, "walkthrough": None}, trial="t2")),
    (NO_GAME, lambda root: add(root, None, traj={"task_type": "pick_and_place_simple"}, trial="t2")),
    (DAMAGED, lambda root: add(root, b"", trial="t2")),
    (DAMAGED, lambda root: add(root, json.dumps(document()).encode()[:-9], trial="t2")),
    (DAMAGED, lambda root: add(root, b"\xff\xfe\x00", trial="t2")),
    (DAMAGED, lambda root: add(root, b"[" * 100_000, trial="t2")),
    (DAMAGED, lambda root: add(root, [1, 2], trial="t2")),
    (DAMAGED, lambda root: add(root, document(pddl_problem=None), trial="t2")),
    (DAMAGED, lambda root: add(root, document(pddl_problem=7), trial="t2")),
    (DAMAGED, lambda root: add(root, document(grammar=None), trial="t2")),
    (DAMAGED, lambda root: add(root, document(grammar="move {o} to {r}"), trial="t2")),
    (DAMAGED, lambda root: add(root, document(grammar=GRAMMAR % "see {exit()}"), trial="t2")),
    (DAMAGED, lambda root: add(root, document(pddl_problem="\ud800"), trial="t2")),
    (DAMAGED, lambda root: add(root, document(walkthrough="look"), trial="t2")),
    (DAMAGED, lambda root: add(root, document(walkthrough=[1]), trial="t2")),
    (DAMAGED, lambda root: add(root, document(), traj="{", trial="t2")),
    (DAMAGED, lambda root: add(root, b"1" + b" " * MAX_FILE_BYTES, trial="t2")),
]


PIPES: list[Callable[[Path], object]] = [os.mkfifo, lambda path: path.symlink_to("/dev/zero")]


@pytest.mark.parametrize("make", PIPES)
@pytest.mark.parametrize("name", ["game.tw-pddl", "traj_data.json"])
def test_a_game_that_is_no_file_is_left_out_without_reading_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], object], name: str
) -> None:
    add(tmp_path, document())
    folder = add(tmp_path, document(), trial="t2", traj={"task_type": TYPE})
    (folder / name).unlink()
    make(folder / name)
    listing = list_games(tmp_path, "train")
    assert len(listing.entries) == 1
    assert f"{name} must be a regular file, got a " in caplog.text


def test_the_folder_of_a_split_must_be_one(tmp_path: Path) -> None:
    for place in ("file", "loop", "a" * 5000):
        with pytest.raises(UserError, match=r"environment\.data_dir must be a directory, got "):
            available_splits(tmp_path / place)
    (tmp_path / "json_2.1.1").mkdir()
    (tmp_path / "json_2.1.1" / "train").touch()
    with pytest.raises(UserError, match=r"has no directory json_2\.1\.1/train"):
        available_splits(tmp_path)


@pytest.mark.parametrize(("reason", "spoil"), LEFT_OUT)
def test_what_cannot_be_played_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reason: str, spoil: Callable[[Path], object]
) -> None:
    add(tmp_path, document())
    spoil(tmp_path)
    with caplog.at_level(logging.INFO):
        listing = list_games(tmp_path, "train")
    assert len(listing.entries) == 1
    assert listing.skipped == {reason: 1}
    assert f"1 games; skipped: 1 {reason}" in caplog.text
    assert ("t2" in caplog.text) == (reason == DAMAGED)


def test_a_damaged_game_is_an_error_when_no_other_is_left(tmp_path: Path) -> None:
    add(tmp_path, b"{")
    with pytest.raises(
        UserError, match=r"environment.data_dir must contain playable games, but .* has none .*1 damaged"
    ):
        list_games(tmp_path, "train")


def test_folders_that_hold_no_dataset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"environment\.data_dir must be a directory"):
        list_games(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match=r"no directory json_2.1.1/train"):
        list_games(tmp_path, "train")
    with pytest.raises(UserError, match=r"no directory json_2.1.1/train"):
        available_splits(tmp_path)
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="must contain playable games"):
        list_games(tmp_path, "train")
    with pytest.raises(UserError, match=r"split must be one of .*, got 'test'"):
        list_games(tmp_path, "test")


def test_splits_are_those_whose_folders_exist(tmp_path: Path) -> None:
    add(tmp_path, document(), split="valid_seen")
    add(tmp_path, document(), split="train")
    assert available_splits(tmp_path) == ("train", "valid_seen")


def test_the_folder_above_the_dataset_may_be_called_anything(tmp_path: Path) -> None:
    add(tmp_path / "movable" / "Sliced", document())
    assert len(list_games(tmp_path / "movable" / "Sliced", "train").entries) == 1


def test_games_of_an_older_alfworld_are_played_with_todays_commands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ALFWorld before 0.4 wrote "put X in/on Y"; what solved a game then solves it now."""
    drawn = HouseholdGenerator(GeneratorSettings()).game("train", 0)
    old = [command.replace("move ", "put ", 1).replace(" to ", " in/on ") for command in drawn.walkthrough[-1:]]
    grammar = (GRAMMAR % drawn.task_text).replace("move {o} to {r}", "put {o} in/on {r}")
    walkthrough = [*drawn.walkthrough[:-1], *old]
    assert walkthrough != list(drawn.walkthrough)
    add(tmp_path, document(grammar=grammar, pddl_problem=drawn.problem, walkthrough=walkthrough))
    (entry,) = list_games(tmp_path, "train").entries
    assert entry.walkthrough == drawn.walkthrough
    state, reply = NativeEngine().load(entry.load()).start()
    for command in entry.walkthrough:
        reply = state.step(command)
    assert reply.won
    assert "1 games of" in caplog.text


@pytest.mark.parametrize("given", ["json_2.1.1", "json_2.1.2", "."])
def test_the_dataset_is_found_in_its_own_folder_and_under_an_earlier_name(tmp_path: Path, given: str) -> None:
    add(tmp_path, document())
    add(tmp_path, document(), split="valid_seen")
    if given == ".":
        root = tmp_path / "json_2.1.1"  # the folder of the splits
    else:
        (tmp_path / "json_2.1.1").rename(tmp_path / given)
        root = tmp_path
    assert available_splits(root) == ("train", "valid_seen")
    assert [entry.game_id for entry in list_games(root, "train").entries] == [f"train/{TASK}/trial_T1"]


def test_of_several_versions_the_present_one_is_read_and_none_is_guessed(tmp_path: Path) -> None:
    add(tmp_path, document())
    (tmp_path / "json_2.1.0" / "train").mkdir(parents=True)
    assert len(list_games(tmp_path, "train").entries) == 1
    (tmp_path / "json_2.1.1").rename(tmp_path / "json_2.1.3")
    with pytest.raises(UserError, match=r"has no directory json_2\.1\.1/train"):
        list_games(tmp_path, "train")


def test_a_copy_without_game_files_names_the_program_that_makes_them(tmp_path: Path) -> None:
    """ALFWorld before 0.3 had only trajectories and initial states, and made the games itself."""
    add(tmp_path, None, traj={"task_type": TYPE})
    add(tmp_path, document(solvable=None), trial="trial_T2")
    with pytest.raises(UserError, match=r"1 not checked to be solvable, 1 without a game file\); alfworld-generate"):
        list_games(tmp_path, "train")


def test_a_file_that_changes_or_vanishes_after_listing_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = add(tmp_path, document())
    (entry,) = list_games(tmp_path, "train").entries
    (folder / "game.tw-pddl").write_text(json.dumps(document(pddl_problem="(define (problem q))")))
    with pytest.raises(GameError, match=r"trial_T1.*has changed"):
        entry.load()
    (folder / "game.tw-pddl").unlink()
    with pytest.raises(GameError, match=r"trial_T1.*cannot be read"):
        entry.load()


def test_the_real_layout_is_read(tmp_path: Path, packed_alfworld: Path) -> None:
    from alfworld_sources import packed_games, packed_rules

    domain, grammar = packed_rules(packed_alfworld)
    packed = next(packed_games(packed_alfworld))
    split, task, trial = packed.game_id.split("/")
    fields = document(
        pddl_domain=domain,
        grammar=grammar.replace("UNKNOWN GOAL", packed.task_text),
        pddl_problem=packed.problem,
        walkthrough=list(packed.walkthrough),
    )
    add(tmp_path, fields, task, trial, split)
    assert list_games(tmp_path, split).entries[0].load() == packed
