"""What the ALFWorld scripts and tests share: the stock engine, games to play, commands to try."""

from __future__ import annotations

import itertools
import json
import lzma
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdar.environments.alfworld.dataset import SPLITS, available_splits, list_games
from sdar.environments.alfworld.engine import Reply
from sdar.environments.alfworld.game import Game
from sdar.environments.alfworld.textworld_engine import rules_of_installed_package


class StockEngine:
    """TextWorld's ``PddlEnv`` under ALFWorld's ``AlfredDemangler``, unchanged. One episode at a time."""

    def __init__(self, domain: str | None = None, grammar: str | None = None) -> None:
        installed = rules_of_installed_package()
        self.domain = installed[0] if domain is None else domain
        self.grammar = installed[1] if grammar is None else grammar
        arguments = sys.argv
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld.envs.pddl import PddlEnv

        infos = textworld.EnvInfos(won=True, admissible_commands=True)
        self.environment = AlfredDemangler(PddlEnv(infos), shuffle=False)
        sys.argv = arguments

    def load(self, game: Game) -> StockGame:
        """Load a game as the engine does, from its own JSON object."""
        document = {
            "pddl_domain": self.domain,
            "grammar": self.grammar.replace("UNKNOWN GOAL", game.task_text),
            "pddl_problem": game.problem,
            "solvable": True,
            "walkthrough": list(game.walkthrough),
        }
        return StockGame(self.environment, document)


class StockGame:
    """A loaded game of the one environment."""

    def __init__(self, environment: Any, document: dict[str, Any]) -> None:
        self.environment = environment
        self.document = document

    def start(self) -> tuple[StockState, Reply]:
        """A fresh episode; whatever the engine played before is over."""
        arguments = sys.argv
        self.environment.load(self.document)
        reply = _reply(self.environment.reset())
        sys.argv = arguments
        return StockState(self.environment), reply


class StockState:
    """The episode that the environment plays now."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment

    def step(self, command: str) -> Reply:
        """Give the command to the engine."""
        return _reply(self.environment.step(command)[0])


def _reply(state: Any) -> Reply:
    return Reply(state.feedback, tuple(state["admissible_commands"]), bool(state["won"]))


def packed_games(folder: Path) -> Iterator[Game]:
    """Games of a packed copy of the dataset (``games.jsonl.xz``), in the file's order."""
    with lzma.open(folder / "games.jsonl.xz", "rt") as lines:
        for line in lines:
            document = json.loads(line)
            _, split, task, trial, _ = document["path"].split("/")
            yield Game(
                game_id=f"{split}/{task}/{trial}",
                task_type=task.split("-")[0],
                task_text=document["task"],
                problem=document["pddl_problem"],
                split=split,
                walkthrough=tuple(document["walkthrough"]),
            )


def packed_rules(folder: Path) -> tuple[str, str]:
    """The domain and the grammar that the dataset's files carry."""
    return (folder / "domain.pddl").read_text(), (folder / "grammar.twl2").read_text()


def dataset_games(folder: Path) -> Iterator[Game]:
    """Games of the dataset as ``alfworld-download`` lays it out."""
    for split in available_splits(folder):
        for entry in list_games(folder, split).entries:
            yield entry.load()


def generated_games(seed: int = 0, large: bool = False) -> Iterator[Game]:
    """Games of the built-in generator without end, the splits and task types taking turns."""
    from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator

    sizes = {"receptacles": (12, 33), "distractors": (20, 36)} if large else {}
    generator = HouseholdGenerator(GeneratorSettings(seed=seed, **sizes))
    for index in itertools.count():
        yield generator.game(SPLITS[index // 6 % len(SPLITS)], index)


def games_of(source: Path | None, seed: int = 0) -> Iterator[Game]:
    """Games of a folder, packed or laid out; generated ones when there is no folder."""
    if source is None:
        return generated_games(seed)
    packed = next((path for path in (source, source / "alfworld") if (path / "games.jsonl.xz").is_file()), None)
    return dataset_games(source) if packed is None else packed_games(packed)


MALFORMED = (
    "",
    " ",
    "look around",
    "LOOK",
    "Go to drawer 1",
    "go to",
    "go to nowhere 1",
    "go  to  drawer 1",
    "take {o} from {r}",
    "open #task#",
    "examine [x]",
    "take mug 99 from countertop 99",
    "put mug 1 in/on shelf 1",
    "move to",
    "use desklamp",
    "clean cool heat",
    "\n",
    "look\ninventory",
    "go to drawer 1; go to drawer 2",
    "ångström 1",
    "help me",
    "x" * 500,
)
"""Commands that no engine may understand, or may understand only after trimming spaces."""


class Walk:
    """Commands of every kind, drawn from what was seen so far; the same for the same key."""

    def __init__(self, key: str) -> None:
        self.rng = random.Random(key)
        self.seen: set[str] = set()

    def next_command(self, reply: Reply) -> str:
        """Mostly an admissible command, kinds taking equal shares; else malformed or admissible at another time."""
        self.seen.update(reply.admissible)
        draw = self.rng.random()
        if draw < 0.08:
            return self.rng.choice(MALFORMED)
        if draw < 0.16:
            return self.rng.choice(sorted(self.seen))
        if draw < 0.2:
            return f"  {self.rng.choice(reply.admissible)} \t"
        verbs = sorted({command.split()[0] for command in reply.admissible})
        verb = self.rng.choice(verbs)
        return self.rng.choice([command for command in reply.admissible if command.split()[0] == verb])


def first_difference(left: Reply, right: Reply) -> str | None:
    """In words, or None when two replies are equal."""
    if left.text != right.text:
        return f"text {left.text!r} / {right.text!r}"
    if left.admissible != right.admissible:
        only_left = sorted(set(left.admissible) - set(right.admissible))
        only_right = sorted(set(right.admissible) - set(left.admissible))
        return f"admissible only left {only_left}, only right {only_right}, or another order"
    if left.won != right.won:
        return f"won {left.won} / {right.won}"
    return None
