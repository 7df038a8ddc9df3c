"""Lists of tasks that are too many to be held in memory, and what is asked of any list of tasks."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from sdar.episode import Task


class TaskList(Sequence[Task]):
    """Tasks that are made when they are asked for. Besides a sequence's, its answers take no pass over all tasks."""

    @abstractmethod
    def by_type(self) -> Mapping[str, Sequence[Task]]:
        """The tasks of each type, in the order of the list."""

    @abstractmethod
    def place(self, task_id: str) -> int | None:
        """Where the task of this id is; None: it is not in the list."""

    @abstractmethod
    def same(self, task: Task) -> Task | None:
        """The task of the list with the id, content or problem of another task; None: there is none."""

    @property
    @abstractmethod
    def content_hash(self) -> str:
        """64 hex digits, which say what the tasks are."""


def tasks_by_type(tasks: Sequence[Task]) -> Mapping[str, Sequence[Task]]:
    """The tasks of each type, in their order."""
    if isinstance(tasks, TaskList):
        return tasks.by_type()
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.task_type, []).append(task)
    return found


def place_of(task_id: str, tasks: Sequence[Task]) -> int | None:
    """Where the task of this id is; None: it is not in the list."""
    if isinstance(tasks, TaskList):
        return tasks.place(task_id)
    return next((place for place, task in enumerate(tasks) if task.task_id == task_id), None)


def shared_tasks(some: Iterable[Task], tasks: Iterable[Task]) -> list[Task]:
    """Those of some tasks that are also, by id, content or problem, among the others."""
    if isinstance(tasks, TaskList):
        return [task for task in some if tasks.same(task) is not None]
    known = list(tasks)
    names, contents = {task.task_id for task in known}, {task.content_hash for task in known}
    problems = {task.problem for task in known if task.problem}
    return [task for task in some if task.task_id in names or task.content_hash in contents or task.problem in problems]


def problem_of(text: str) -> str:
    """What makes a text the same question: its words, whatever the whitespace and the case (:attr:`Task.problem`)."""
    return " ".join(text.casefold().split())


def content_hash(tasks: Iterable[Task]) -> str:
    """64 hex digits, equal for the same tasks in any order; of a :class:`TaskList` its own."""
    if isinstance(tasks, TaskList):
        return tasks.content_hash
    digest = hashlib.sha256()
    for line in sorted(f"{task.task_id}\0{task.content_hash}\n" for task in tasks):
        digest.update(line.encode())
    return digest.hexdigest()
