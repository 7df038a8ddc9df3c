"""Retrieval strategies, which select skills for the teacher: the base class, and strategies without state.

A strategy is a subclass of :class:`Retrieval` that implements ``choose``, with a file in ``configs/retrieval/``. If it
neither draws nor learns, it is one of :class:`FixedRetrieval`, for which rollouts reserve no more than it gives.
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
    """The key of a random choice, together with the task: the run's seed, the iteration and the group member."""

    seed: int = 0
    iteration: int = 0
    member: int = 0


@dataclass(frozen=True)
class Choice:
    """A skill and a short reason for its choice."""

    skill: Skill
    reason: str


class Retrieval(Memory, ABC):
    """A strategy that chooses skills for a task.

    Only ``observe`` changes its state. See :class:`sdar.teacher.base.Teacher` for the order of calls.
    """

    setting: ClassVar[str] = "retrieval"

    def __init__(self, general: bool = True) -> None:
        """``general``: whether to add the library's general skills."""
        self.general = general

    @abstractmethod
    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:
        """Task skills, the most important first. May be empty."""

    def ranked(self, library: SkillLibrary, task: Task, draw: Draw | None = None) -> list[Choice]:
        """All skills for a task by rank: chosen task skills, then general ones. The last is dropped first."""
        chosen = self.choose(library, task, draw or Draw())
        return chosen + ([Choice(skill, "general") for skill in library.general] if self.general else [])

    def select(self, library: SkillLibrary, task: Task, draw: Draw | None = None) -> list[Skill]:
        """Skills for a task in reading order: general ones first, then by rank."""
        return reading_order([choice.skill for choice in self.ranked(library, task, draw)])

    def possible(self, library: SkillLibrary, task: Task) -> list[list[Skill]]:  # noqa: ARG002
        """All selections that are possible for a task in any state and with any draw; at least an upper bound.

        Rollouts reserve tokens for the longest. The default is one selection of everything that ``choose`` could name.
        """
        return [reading_order([*library.task, *(library.general if self.general else [])])]

    def begin(self, library: SkillLibrary, tasks: Sequence[Task]) -> None:
        """Prepare an iteration with the tasks of all ranks, in order. May be called again for the same iteration."""

    def observe(self, outcomes: Sequence[TaskOutcome], solved_return: float) -> None:
        """Learn from the outcomes of the tasks given to ``begin``. ``solved_return``: return of a solved episode."""


def reading_order(skills: Sequence[Skill]) -> list[Skill]:
    """General skills first, otherwise in the given order."""
    return sorted(skills, key=lambda skill: skill.is_task)


class FixedRetrieval(Retrieval):
    """A strategy whose choice depends on the library and the task alone: neither on the draw nor on a state."""

    def possible(self, library: SkillLibrary, task: Task) -> list[list[Skill]]:
        """The only selection."""
        return [self.select(library, task)]


class KeywordRetrieval(FixedRetrieval):
    """Task skills whose keywords occur in the task's description.

    A keyword matches whole words, ignoring case: "hat" does not match "that", and a phrase must be contiguous. Only the
    description is searched, since observations would change the teacher from turn to turn. All task skills with a match
    are chosen, those with more matching keywords first. If none matches, the task skills without keywords are chosen:
    the library's default. Of a library in which no skill has keywords, those for the task's type are.
    """

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """See the class."""
        matches = [(matching_keywords(skill, task), skill) for skill in library.task]
        # sorted() is stable: equal counts keep the library's order.
        ranked = sorted((match for match in matches if match[0]), key=lambda match: -len(match[0]))
        if ranked:
            return [Choice(skill, f"the task says {', '.join(map(repr, words))}") for words, skill in ranked]
        if not any(skill.keywords for skill in library.task) and (own := library.for_type(task.task_type)):
            return [Choice(skill, f"no skill has keywords; it is for {task.task_type}") for skill in own]
        default = [skill for skill in library.task if not skill.keywords]
        return [Choice(skill, "no keyword matches; it is the library's default") for skill in default]


class TaskTypeRetrieval(FixedRetrieval):
    """Task skills for the type of the task, see :meth:`SkillLibrary.for_type`."""

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """See the class."""
        return [Choice(skill, f"for {task.task_type}") for skill in library.for_type(task.task_type)]


class FullRetrieval(FixedRetrieval):
    """All skills of the library. Those with matching keywords rank first, then general ones, then the others."""

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


class NoRetrieval(FixedRetrieval):
    """No task skill."""

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """Nothing."""
        return []


def matching_keywords(skill: Skill, task: Task) -> list[str]:
    """The skill's keywords that occur in the task's description."""
    text = task.description
    # In ASCII a search is asked for only where the first word occurs: ten times faster for hundreds of keywords.
    lowered = text.lower() if text.isascii() else None
    return [
        word
        for word in skill.keywords
        if (lowered is None or not word.isascii() or word.split()[0].lower() in lowered) and _pattern(word).search(text)
    ]


@lru_cache(maxsize=4096)
def _pattern(keyword: str) -> re.Pattern[str]:
    """Match the keyword with no letter, digit or underscore on either side; any whitespace between its words.

    Look-arounds instead of word boundaries: there is no boundary next to a keyword that ends in punctuation.
    """
    words = r"\s+".join(re.escape(word) for word in keyword.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
