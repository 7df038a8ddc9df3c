"""What the environment asks of an engine that plays ALFRED text games."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sdar.environments.alfworld.game import Game


@dataclass(frozen=True)
class Reply:
    """An engine's answer: text, the commands admissible now (sorted, ``help`` included), whether the game is won."""

    text: str
    admissible: tuple[str, ...]
    won: bool


class EngineState(Protocol):
    """One running episode of a loaded game."""

    def step(self, command: str) -> Reply:
        """Apply a command. An inadmissible one answers "Nothing happens." and changes nothing."""
        ...


class EngineGame(Protocol):
    """A loaded game that can be started any number of times; started episodes do not disturb one another."""

    def start(self) -> tuple[EngineState, Reply]:
        """A fresh episode and its opening reply."""
        ...


class Engine(Protocol):
    """A way to play games."""

    def load(self, game: Game) -> EngineGame:
        """Load a game; raises :class:`GameError` naming the game when it cannot be played."""
        ...


class GameError(ValueError):
    """A game that cannot be played; the message names the game and the reason."""
