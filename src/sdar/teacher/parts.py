"""What a teacher's text is made of: items with a rank, whole or not at all."""

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
    """One piece of privileged text, given up as a whole or not at all. ``name`` is what it is counted under."""

    name: str
    text: str


class ContextPart(IterationHooks, ABC):
    """One kind of privileged text: skills, or a demonstration. The calls come as those of a teacher do.

    Items are listed by rank: the last is the first to be given up where there is no room.
    """

    known_before: ClassVar[bool] = True
    """Whether the items of an episode are known before it is played."""

    header: str
    """First line of the part's text."""

    def connect(self, environment: Environment, count_tokens: Callable[[str], int]) -> None:
        """Get to know the environment, and how long a text is in tokens; called once, first."""

    @abstractmethod
    def items(self, task: Task, member: int) -> list[Item]:
        """Items of an episode that has not been played."""

    def items_after(self, episode: Episode, group: Sequence[Episode]) -> list[Item]:  # noqa: ARG002
        """Items of a finished episode; ``group``: all episodes of its task, itself among them."""
        return self.items(episode.task, episode.member)

    def evaluation_items(self, task: Task) -> list[Item]:
        """Items that an evaluation puts into the prompt: the same for all weights and all iterations."""
        return self.items(task, 0)

    @abstractmethod
    def possible(self, task: Task) -> list[list[Item]]:
        """Every list of items a task may get, as far as they are known before; whatever has been learned."""

    def arrange(self, items: Sequence[Item]) -> list[Item]:
        """The order in which the items are read; the order of their rank unless a part says otherwise."""
        return list(items)
