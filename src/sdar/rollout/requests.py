"""What a collector is asked for, what it says meanwhile, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

from sdar.episode import Episode, Task


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to play: a task and the 0-based number of the group member."""

    task: Task
    member: int


@dataclass(frozen=True)
class CollectProgress:
    """Counts of a running collection over all its waves. ``live`` episodes are currently played."""

    finished: int
    total: int
    live: int
    turns: int
    response_tokens: int


@dataclass
class CollectedRollouts:
    """Episodes in the order of the requests; ``timings`` in seconds: ``generate_s``, ``environment_s``."""

    episodes: list[Episode]
    timings: dict[str, float]
