"""Which skills the teacher gets to read: what every strategy offers, and those that look at the task alone.

A strategy is a subclass of :class:`Retrieval` with ``choose``, named in a file of ``configs/retrieval/``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from sdar.episode import Task, TaskOutcome
from sdar.skills.library import Skill, SkillLibrary
from sdar.skills.memory import Memory


@dataclass(frozen=True)
class Draw:
    """What names a random choice beside its task: the run's seed, the iteration and the group member."""

    seed: int = 0
    iteration: int = 0
    member: int = 0


@dataclass(frozen=True)
class Choice:
    """A skill and, in a few words, why it was chosen."""

    skill: Skill
    reason: str


class Retrieval(Memory, ABC):
    """A strategy that chooses skills for a task.

    What it remembers is changed by ``observe`` alone; see :class:`sdar.teacher.base.Teacher` for the order of calls.
    """

    setting: ClassVar[str] = "retrieval"

    def __init__(self, general: bool = True) -> None:
        """``general``: whether the library's general skills come along."""
        self.general = general

    @abstractmethod
    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:
        """Task skills, the most important first; [] for none."""

    def ranked(self, library: SkillLibrary, task: Task, draw: Draw | None = None) -> list[Choice]:
        """All skills for a task by rank: task skills as chosen, then the general ones. The last is given up first."""
        chosen = self.choose(library, task, draw or Draw())
        return chosen + ([Choice(skill, "general") for skill in library.general] if self.general else [])

    def select(self, library: SkillLibrary, task: Task, draw: Draw | None = None) -> list[Skill]:
        """Skills for a task in the order in which the teacher reads them: general ones first, then by rank."""
        return reading_order([choice.skill for choice in self.ranked(library, task, draw)])

    def possible(self, library: SkillLibrary, task: Task) -> list[list[Skill]]:
        """Every selection that a task may get: rollouts leave room for the longest, whatever has been learned."""
        return [self.select(library, task)]

    def begin(self, library: SkillLibrary, tasks: Sequence[Task]) -> None:
        """Prepare an iteration with the tasks of all ranks, in their order; may be called again for the same one."""

    def observe(self, outcomes: Sequence[TaskOutcome], solved_return: float) -> None:
        """Learn from an iteration: outcomes of the tasks given to ``begin``; ``solved_return``: of a solved episode."""


def reading_order(skills: Sequence[Skill]) -> list[Skill]:
    """General skills first; otherwise as given."""
    return sorted(skills, key=lambda skill: skill.is_task)


class KeywordRetrieval(Retrieval):
    """Task skills whose keywords occur in the task's description.

    A keyword matches as whole words, whatever the case: "hat" does not fire in "that", and a phrase needs its words
    side by side. Only the description is searched: an observation would change the teacher from turn to turn. Every
    task skill with a match is picked, those with more matching keywords first; where none matches, the task skills
    that have no keywords at all are picked: they are the library's default.
    """

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """See the class."""
        matches = [(matching_keywords(skill, task), skill) for skill in library.task]
        # sorted() is stable: equal counts stay in the library's order.
        ranked = sorted((match for match in matches if match[0]), key=lambda match: -len(match[0]))
        if ranked:
            return [Choice(skill, f"the task says {', '.join(map(repr, words))}") for words, skill in ranked]
        default = [skill for skill in library.task if not skill.keywords]
        return [Choice(skill, "no keyword matches; it is the library's default") for skill in default]


class TaskTypeRetrieval(Retrieval):
    """Task skills that name the type of the task, as the environment gives it."""

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """See the class."""
        return [Choice(skill, f"for {task.task_type}") for skill in library.task if task.task_type in skill.task_types]


class FullRetrieval(Retrieval):
    """Every skill of the library. Those whose keywords match rank first, then the general ones, then the others."""

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:
        """All task skills."""
        matching = KeywordRetrieval().choose(library, task, draw)
        found = [choice.skill for choice in matching]
        return matching + [Choice(skill, "everything") for skill in library.task if skill not in found]

    def ranked(self, library: SkillLibrary, task: Task, draw: Draw | None = None) -> list[Choice]:
        """See the class."""
        matching = len(KeywordRetrieval().choose(library, task, draw or Draw()))
        ranked = super().ranked(library, task, draw)
        tasks = len(library.task)
        return ranked[:matching] + ranked[tasks:] + ranked[matching:tasks]


class NoRetrieval(Retrieval):
    """No task skill."""

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """Nothing."""
        return []


def matching_keywords(skill: Skill, task: Task) -> list[str]:
    """The skill's keywords that occur in the task's description."""
    return [word for word in skill.keywords if _pattern(word).search(task.description)]


@lru_cache(maxsize=4096)
def _pattern(keyword: str) -> re.Pattern[str]:
    """Match the keyword with no letter, digit or underscore on either side; any white space between its words.

    Look-arounds and not word boundaries: a boundary does not exist beside a keyword that ends in punctuation.
    """
    words = r"\s+".join(re.escape(word) for word in keyword.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
