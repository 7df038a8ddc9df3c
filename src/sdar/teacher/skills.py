"""Skills as part of the privileged text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from sdar.environments.base import Environment
from sdar.environments.task_list import tasks_by_type
from sdar.episode import Task, TaskOutcome
from sdar.skills.library import Skill, SkillLibrary
from sdar.skills.retrieval import Draw, KeywordRetrieval, NoRetrieval, Retrieval, TaskTypeRetrieval, reading_order
from sdar.teacher.parts import ContextPart, Item

_LOOKED_AT = 10_000
"""Tasks of a type that are tried until one gets a task skill."""

HEADER = "[Privileged Skill Information]"

log = logging.getLogger(__name__)


class SkillPart(ContextPart):
    """The skills that a strategy retrieves for an episode.

    Evaluations use keyword retrieval regardless of the strategy: they measure how well the policy uses the right
    skills, and are comparable between runs and iterations.
    """

    def __init__(self, library: SkillLibrary, retrieval: Retrieval, header: str = HEADER) -> None:
        self.library = library
        self.retrieval = retrieval
        self.header = header
        self._solved_return = 1.0
        self._seed = self._iteration = 0

    def connect(self, environment: Environment, count_tokens: Callable[[str], int]) -> None:  # noqa: ARG002
        """Store the return of a solved episode, and warn if the library seems to be for other tasks."""
        self._solved_return = environment.solved_return
        misfit = misfits(self.library, self.retrieval, environment.tasks(environment.splits()[0]))
        if misfit:
            log.warning("%s; sdar skills check shows the selected skills", misfit)

    def begin(self, tasks: Sequence[Task], *, iteration: int, seed: int) -> None:
        """Store the key of the iteration's draws, and let the strategy choose."""
        self._seed, self._iteration = seed, iteration
        self.retrieval.begin(self.library, tasks)

    def items(self, task: Task, member: int) -> list[Item]:
        """The retrieved skills."""
        ranked = self.retrieval.ranked(self.library, task, Draw(self._seed, self._iteration, member))
        return _items([choice.skill for choice in ranked])

    def evaluation_items(self, task: Task) -> list[Item]:
        """Skills by keyword, including the general ones; by type where the run retrieves so."""
        by_type = isinstance(self.retrieval, TaskTypeRetrieval)
        ranked = (self.retrieval if by_type else KeywordRetrieval()).ranked(self.library, task)
        return _items([choice.skill for choice in ranked])

    def possible(self, task: Task) -> list[list[Item]]:
        """Every selection of the strategy."""
        return [_items(selection) for selection in self.retrieval.possible(self.library, task)]

    def arrange(self, items: Sequence[Item]) -> list[Item]:
        """General skills first, then by rank."""
        by_name = {skill.name: skill for skill in self.library}
        return _items(reading_order([by_name[item.name] for item in items]))

    def observe(self, outcomes: Sequence[TaskOutcome], gathered: Sequence[Any]) -> None:  # noqa: ARG002
        """Pass the outcomes to the strategy."""
        self.retrieval.observe(outcomes, self._solved_return)

    def metrics(self) -> dict[str, float]:
        """The metrics of the strategy."""
        return self.retrieval.metrics()

    def record(self) -> dict[str, Any]:
        """The record of the strategy."""
        return self.retrieval.record()

    def state(self) -> dict[str, Any]:
        """The state of the strategy."""
        return self.retrieval.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load the state of the strategy."""
        self.retrieval.load_state(state)


def misfits(library: SkillLibrary, retrieval: Retrieval, tasks: Sequence[Task]) -> str:
    """Why a library does not fit these tasks, in a clause; "" if it does, or if all its skills are general."""
    types = sorted({name for skill in library.task for name in skill.task_types})
    if not types or isinstance(retrieval, NoRetrieval):
        return ""
    by_type = tasks_by_type(tasks)
    found = sorted(by_type)
    if not any(library.for_type(task_type) for task_type in found):
        return f"the skills are for tasks of the types {', '.join(types)}, but the tasks are {', '.join(found)}"
    without = [name for name in found if not _has_task_skill(library, retrieval, by_type[name])]
    if without == found:
        return f"the retrieval finds only general skills for all {len(tasks)} training tasks"
    if without:
        return f"the retrieval finds only general skills for the training tasks of the types {', '.join(without)}"
    return ""


def _has_task_skill(library: SkillLibrary, retrieval: Retrieval, tasks: Sequence[Task]) -> bool:
    """Whether any of the tasks, as far as they are looked at, gets more than general skills."""
    # Not what is possible, which may be a mere bound.
    return any(skill.is_task for task in islice(tasks, _LOOKED_AT) for skill in retrieval.select(library, task))


def _items(skills: Sequence[Skill]) -> list[Item]:
    return [Item(skill.name, skill.text) for skill in skills]
