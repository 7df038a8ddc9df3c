"""The parts of a teacher's text: ranked items that are kept whole or dropped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdar.environments.base import Environment
from sdar.episode import Episode, Task
from sdar.teacher.hooks import IterationHooks


@dataclass(frozen=True)
class Item:
    """One piece of privileged text, kept whole or dropped. It is counted under ``name``."""

    name: str
    text: str


class ContextPart(IterationHooks, ABC):
    """One kind of privileged text: skills, or a demonstration. Its hooks are called like those of a teacher.

    Items are listed by rank: the last is the first to be dropped when there is no room.
    """

    known_before: ClassVar[bool] = True
    """Whether the items of an episode are known before it is played."""

    header: str
    """First line of the part's text."""

    def connect(self, environment: Environment, count_tokens: Callable[[str], int]) -> None:
        """Called once, before any other hook; ``count_tokens`` gives the length of a text."""

    @abstractmethod
    def items(self, task: Task, member: int) -> list[Item]:
        """Items for an episode that has not been played."""

    def items_after(self, episode: Episode, group: Sequence[Episode]) -> list[Item]:  # noqa: ARG002
        """Items for a finished episode; ``group``: all episodes of its task, itself included."""
        return self.items(episode.task, episode.member)

    def evaluation_items(self, task: Task) -> list[Item]:
        """Items that an evaluation puts into the prompt, the same for all weights and iterations."""
        return self.items(task, 0)

    @abstractmethod
    def possible(self, task: Task) -> list[list[Item]]:
        """Every list of items that a task may get, as far as known before; independent of what has been learned."""

    def arrange(self, items: Sequence[Item]) -> list[Item]:
        """The items in reading order; by default the order of rank."""
        return list(items)
