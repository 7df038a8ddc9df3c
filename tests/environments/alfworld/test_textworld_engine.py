"""The original engine with caches: same transcripts, and no side effects in the process."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fast_downward")

from alfworld_sources import StockEngine, Walk, first_difference, generated_games, packed_games, packed_rules

from sdar.environments.alfworld.engine import GameError
from sdar.environments.alfworld.game import Game
from sdar.environments.alfworld.textworld_engine import TextWorldEngine
from sdar.errors import UserError


@pytest.fixture(scope="module")
def engine() -> TextWorldEngine:
    return TextWorldEngine()


@pytest.fixture(scope="module")
def game() -> Game:
    return next(generated_games())


def one_of_each_type(folder: Path) -> list[Game]:
    """A small real game of each task type."""
    smallest: dict[str, Game] = {}
    for game in itertools.islice(packed_games(folder), 0, None, 25):
        known = smallest.get(game.task_type)
        if known is None or len(game.problem) < len(known.problem):
            smallest[game.task_type] = game
    return list(smallest.values())


needs_the_stock_engine = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="TextWorld 1.7 writes to locals(), which Python 3.13 no longer takes (PEP 667)"
)


@needs_the_stock_engine
def test_a_generated_game_plays_as_in_the_stock_engine(engine: TextWorldEngine, game: Game) -> None:
    assert_same_play(engine, StockEngine(), game, num_commands=15)


@needs_the_stock_engine
def test_real_games_play_as_in_the_stock_engine(engine: TextWorldEngine, packed_alfworld: Path) -> None:
    games = one_of_each_type(packed_alfworld)
    stock = StockEngine(*packed_rules(packed_alfworld))
    for game in games[:1]:
        assert_same_play(engine, stock, game, num_commands=12)


@needs_the_stock_engine
@pytest.mark.slow
def test_real_games_of_all_types_play_as_in_the_stock_engine(engine: TextWorldEngine, packed_alfworld: Path) -> None:
    stock = StockEngine(*packed_rules(packed_alfworld))
    for game in one_of_each_type(packed_alfworld):
        assert_same_play(engine, stock, game, num_commands=50)


def test_walkthroughs_win_real_games_of_all_types(engine: TextWorldEngine, packed_alfworld: Path) -> None:
    games = one_of_each_type(packed_alfworld)
    assert len(games) == 6
    for game in games:
        state, reply = engine.load(game).start()
        for command in game.walkthrough:
            assert not reply.won
            reply = state.step(command)
        assert reply.won, game.game_id


def assert_same_play(engine: TextWorldEngine, stock: StockEngine, game: Game, num_commands: int) -> None:
    state, reply = engine.load(game).start()
    stock_state, stock_reply = stock.load(game).start()
    assert first_difference(reply, stock_reply) is None
    walk = Walk(game.game_id)
    for _ in range(num_commands):
        command = walk.next_command(reply)
        reply, stock_reply = state.step(command), stock_state.step(command)
        assert first_difference(reply, stock_reply) is None, (game.game_id, command)
    state, reply = engine.load(game).start()
    stock_state, stock_reply = stock.load(game).start()
    for command in game.walkthrough:
        reply, stock_reply = state.step(command), stock_state.step(command)
        assert first_difference(reply, stock_reply) is None, (game.game_id, command)
    assert reply.won


def test_episodes_of_one_game_do_not_disturb_one_another(engine: TextWorldEngine, game: Game) -> None:
    loaded = engine.load(game)
    solo = play(loaded.start(), game)
    first, second = loaded.start(), loaded.start()
    interleaved = [first[1]]
    for command in game.walkthrough:
        second[0].step(second[1].admissible[0])
        interleaved.append(first[0].step(command))
    assert interleaved == solo
    assert play(loaded.start(), game) == solo


def play(started: tuple, game: Game) -> list:
    state, reply = started
    return [reply, *(state.step(command) for command in game.walkthrough)]


def test_libraries_of_ended_episodes_are_used_again(game: Game) -> None:
    engine = TextWorldEngine()
    loaded = engine.load(game)
    for _ in range(5):
        loaded.start()
        gc.collect()
    assert len(engine.libraries) == 1


def test_a_refused_command_changes_nothing(engine: TextWorldEngine, game: Game) -> None:
    state, reply = engine.load(game).start()
    refused = state.step("open nothing 1")
    assert refused.text == "Nothing happens."
    assert (refused.admissible, refused.won) == (reply.admissible, reply.won)


def test_a_problem_that_cannot_be_translated_is_named(engine: TextWorldEngine) -> None:
    for problem in ("", "(define (problem x)", "(define (problem x) (:domain alfred) (:objects) (:init (nothing)))"):
        with pytest.raises(GameError, match="game train/broken"):
            engine.load(Game("train/broken", "pick_and_place_simple", "put", problem, "train"))


def test_a_goal_that_cannot_be_reached_is_named(engine: TextWorldEngine, game: Game) -> None:
    problem = game.problem[: game.problem.index("(:goal")] + "(:goal (holds agent1 agent1)))"
    with pytest.raises(GameError, match="game train/endless: its goal cannot be reached"):
        engine.load(replace(game, game_id="train/endless", problem=problem))


def test_the_same_game_is_translated_once(engine: TextWorldEngine, game: Game) -> None:
    assert engine.load(game) is engine.load(game)


@pytest.mark.e2e
def test_importing_the_engine_leaves_environment_arguments_and_home_alone(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "arguments = list(sys.argv)\n"
        "from sdar.environments.alfworld.textworld_engine import TextWorldEngine\n"
        "TextWorldEngine()\n"
        "assert sys.argv == arguments, sys.argv\n"
        "assert 'ALFWORLD_DATA' not in os.environ\n"
        "assert os.listdir(os.environ['HOME']) == [], os.listdir(os.environ['HOME'])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ALFWORLD_DATA"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, "--an-argument"], check=True, env=environment)


def test_missing_packages_are_named_with_the_extra_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sdar.environments.alfworld.textworld_backend", None)
    with pytest.raises(UserError, match=r"pip install 'sdar\[textworld\]'"):
        TextWorldEngine()


def test_a_missing_alfworld_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'sdar\[textworld\]'"):
        TextWorldEngine()
