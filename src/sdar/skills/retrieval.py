"""Which skills the teacher gets to read for a task."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol

from sdar.episode import Task
from sdar.skills.library import Skill, SkillLibrary


class Retrieval(Protocol):
    """A strategy that picks skills for a task."""

    def select(self, library: SkillLibrary, task: Task) -> list[Skill]:
        """Skills in the order in which the teacher reads them, the most important first; [] for none."""


class KeywordRetrieval:
    """Task skills whose keywords occur in the task's description, after the general skills.

    A keyword matches as whole words, whatever the case: "hat" does not fire in "that", and a phrase needs its words
    side by side. Only the description is searched: an observation would change the teacher from turn to turn. Every
    task skill with a match is picked, those with more matching keywords first; where none matches, the task skills
    that have no keywords at all are picked: they are the library's default.
    """

    def __init__(self, general: bool = True) -> None:
        """``general``: whether the library's general skills come along."""
        self.general = general

    def select(self, library: SkillLibrary, task: Task) -> list[Skill]:
        """Skills for one task; see the class."""
        matches = [(sum(_occurs(word, task.description) for word in skill.keywords), skill) for skill in library.task]
        # sorted() is stable: equal counts stay in the library's order.
        chosen = [skill for count, skill in sorted(matches, key=lambda match: -match[0]) if count]
        if not chosen:
            chosen = [skill for skill in library.task if not skill.keywords]
        return (library.general if self.general else []) + chosen


def _occurs(keyword: str, text: str) -> bool:
    return _pattern(keyword).search(text) is not None


@lru_cache(maxsize=4096)
def _pattern(keyword: str) -> re.Pattern[str]:
    """Match the keyword with no letter, digit or underscore on either side; any white space between its words.

    Look-arounds and not word boundaries: a boundary does not exist beside a keyword that ends in punctuation.
    """
    words = r"\s+".join(re.escape(word) for word in keyword.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
