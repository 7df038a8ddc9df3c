"""A game of the ALFRED text domain: problem, task sentence, and one known solution."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sdar.environments.alfworld.task_text import TEMPLATES

TASK_TYPES = tuple(TEMPLATES)
"""The six task types: ALFRED's names in ALFWorld's order."""


@dataclass(frozen=True)
class Game:
    """One game. ``problem`` is a PDDL problem of the domain ``alfred``; ``task_text`` the goal in words.

    ``walkthrough`` is a sequence of commands that wins, empty if none is known.
    """

    game_id: str
    task_type: str
    task_text: str
    problem: str
    split: str
    walkthrough: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of problem and task text, which determine how the game plays."""
        digest = hashlib.sha256()
        digest.update(self.problem.encode())
        digest.update(b"\0")
        digest.update(self.task_text.encode())
        return digest.hexdigest()

    def load(self) -> Game:
        """The game itself. Dataset entries, which stand in for games, read it from disk."""
        return self
