"""A game of the ALFRED text domain: problem, task sentence, and one known solution."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six task types: ALFRED's names in ALFWorld's order."""


class GameSource(Protocol):
    """A game in memory or on disk: the payload of a task."""

    @property
    def game_id(self) -> str:
        """Unique and stable name."""
        ...

    @property
    def task_type(self) -> str:
        """One of :data:`TASK_TYPES`."""
        ...

    @property
    def task_text(self) -> str:
        """The goal in words."""
        ...

    @property
    def split(self) -> str:
        """The split it belongs to."""
        ...

    @property
    def content_hash(self) -> str:
        """See :attr:`Game.content_hash`."""
        ...

    @property
    def walkthrough(self) -> tuple[str, ...]:
        """Commands that win; empty if none are known."""
        ...

    def load(self) -> Game:
        """The whole game. Raises :class:`GameError` if it cannot be read."""
        ...


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
