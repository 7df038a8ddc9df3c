"""The published games, in the layout of a user's folder, through the environment class."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.alfworld.game import TASK_TYPES
from sdar.evaluation.agents import play_expert

GAMES_PER_TYPE = 34


def lay_out(packed: Path, out: Path) -> Counter[str]:
    """The given number of training games of each type, spread over the file, in the dataset's folders."""
    domain, grammar = (packed / "domain.pddl").read_text(), (packed / "grammar.twl2").read_text()
    with lzma.open(packed / "games.jsonl.xz", "rt") as lines:
        games = [json.loads(line) for line in lines]
    by_type: dict[str, list[dict[str, object]]] = {name: [] for name in TASK_TYPES}
    for game in games:
        if "/train/" in game["path"]:
            by_type[game["path"].split("/")[2].split("-")[0]].append(game)
    chosen = [g for found in by_type.values() for g in found[:: max(1, len(found) // GAMES_PER_TYPE)][:GAMES_PER_TYPE]]
    for game in chosen:
        document = {
            "pddl_domain": domain,
            "grammar": grammar.replace("UNKNOWN GOAL", str(game["task"])),
            "pddl_problem": game["pddl_problem"],
            "solvable": True,
            "walkthrough": game["walkthrough"],
        }
        target = out / str(game["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document))
    return Counter(str(game["path"]).split("/")[2].split("-")[0] for game in chosen)


@pytest.mark.parametrize(
    ("engine", "count"), [("native", None), pytest.param("textworld", 2, marks=pytest.mark.slow, id="textworld")]
)
def test_the_stored_walkthroughs_win_real_games_of_all_six_types(
    engine: str, count: int | None, packed_alfworld: Path, tmp_path: Path
) -> None:
    laid_out = lay_out(packed_alfworld, tmp_path)
    environment = AlfworldEnvironment(engine=engine, data_dir=tmp_path, max_turns=50)
    tasks = environment.tasks("train")
    assert Counter(task.task_type for task in tasks) == laid_out == Counter(dict.fromkeys(TASK_TYPES, GAMES_PER_TYPE))
    if count is not None:
        tasks = [task for name in TASK_TYPES for task in [t for t in tasks if t.task_type == name][:count]]
    episodes = play_expert(environment, tasks)
    assert episodes is not None
    assert len(episodes) == len(tasks)
    assert all(episode.success and episode.episode_return == 10.0 for episode in episodes)
