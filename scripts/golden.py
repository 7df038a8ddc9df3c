"""Golden transcripts: a game with everything the original engine said to a list of commands, in a file to read back.

A file holds ``recorded_with`` (versions), ``game`` (all fields), ``episodes`` - each a list of steps. A step has the
``command`` (null: the opening), the ``text``, whether it is ``won``, and the admissible commands as what was ``added``
to and ``removed`` from the previous step's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdar.environments.alfworld.engine import Reply
from sdar.environments.alfworld.game import Game

Transcript = list[tuple[str | None, Reply]]
"""Commands with their replies; the first command is None."""


def write_golden(path: Path, game: Game, episodes: list[Transcript], versions: dict[str, str]) -> None:
    """Write one game's transcripts; the same transcripts give the same bytes."""
    document = {
        "recorded_with": versions,
        "game": asdict(game),
        "episodes": [list(_steps(episode)) for episode in episodes],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _steps(episode: Transcript) -> Iterator[dict[str, Any]]:
    before: set[str] = set()
    for command, reply in episode:
        now = set(reply.admissible)
        if reply.admissible != tuple(sorted(now)):
            raise ValueError(f"admissible commands are not sorted after {command!r}")
        step: dict[str, Any] = {"command": command, "text": reply.text, "won": reply.won}
        step["added"], step["removed"] = sorted(now - before), sorted(before - now)
        before = now
        yield step


def read_golden(path: Path) -> tuple[Game, list[Transcript]]:
    """A game and its transcripts."""
    document = json.loads(path.read_text(encoding="utf-8"))
    fields = document["game"]
    game = Game(**{**fields, "walkthrough": tuple(fields["walkthrough"])})
    return game, [list(_replies(steps)) for steps in document["episodes"]]


def _replies(steps: list[dict[str, Any]]) -> Iterator[tuple[str | None, Reply]]:
    commands: set[str] = set()
    for step in steps:
        commands = (commands | set(step["added"])) - set(step["removed"])
        yield step["command"], Reply(step["text"], tuple(sorted(commands)), step["won"])
