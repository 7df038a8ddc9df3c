"""The interface of an engine that plays ALFRED text games."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sdar.environments.alfworld.game import Game


@dataclass(frozen=True)
class Reply:
    """An engine's answer: text, admissible commands (sorted, including ``help``), and whether the game is won."""

    text: str
    admissible: tuple[str, ...]
    won: bool


class EngineState(Protocol):
    """One running episode of a loaded game."""

    def step(self, command: str) -> Reply:
        """Apply a command. For an inadmissible one the answer is "Nothing happens." and nothing changes."""
        ...


class EngineGame(Protocol):
    """A loaded game that can be started any number of times. Its episodes are independent."""

    def start(self) -> tuple[EngineState, Reply]:
        """A new episode and its opening reply."""
        ...


class Engine(Protocol):
    """Loads and plays games."""

    def load(self, game: Game) -> EngineGame:
        """Load a game. Raises :class:`GameError`, which names the game, if it cannot be played."""
        ...


class GameError(ValueError):
    """A game that cannot be played; the message names the game and the reason."""
