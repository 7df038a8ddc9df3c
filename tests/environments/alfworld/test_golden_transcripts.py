"""Both engines reproduce transcripts of the original engine on generated games."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden import read_golden

from sdar.environments.alfworld.engine import Engine
from sdar.environments.alfworld.game import TASK_TYPES
from sdar.environments.alfworld.native import NativeEngine

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def replay(engine: Engine, path: Path) -> None:
    game, episodes = read_golden(path)
    loaded = engine.load(game)
    running = [(loaded.start(), episode) for episode in episodes]
    for (state, reply), episode in running:
        assert reply == episode[0][1]
        for command, expected in episode[1:]:
            assert command is not None
            assert state.step(command) == expected, f"after {command!r}"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_native_engine_says_what_the_original_said(path: Path) -> None:
    replay(NativeEngine(), path)


@pytest.mark.parametrize("path", GOLDEN[:3], ids=lambda path: path.stem)
def test_textworld_engine_says_what_the_original_said(path: Path) -> None:
    pytest.importorskip("alfworld.info")
    from sdar.environments.alfworld.textworld_engine import TextWorldEngine

    replay(TextWorldEngine(), path)


def test_golden_files_cover_all_task_types_and_end_with_a_win() -> None:
    games = [read_golden(path) for path in GOLDEN]
    assert {game.task_type for game, _ in games} == set(TASK_TYPES)
    assert all(episodes[1][-1][1].won for _, episodes in games)


def test_golden_files_hold_refused_commands_and_every_verb() -> None:
    steps = [step for path in GOLDEN for episode in read_golden(path)[1] for step in episode[1:]]
    refused = [command for command, reply in steps if reply.text == "Nothing happens."]
    verbs = {str(command).split()[0] for command, reply in steps if reply.text != "Nothing happens."}
    assert len(refused) > 20
    assert verbs >= {"go", "open", "close", "take", "move", "clean", "heat", "cool", "use", "examine", "look", "help"}
