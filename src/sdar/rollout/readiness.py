"""Whether an environment can be played at all, found out before anything else is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sdar.environments.base import Environment
from sdar.environments.check import ODD_RESPONSES
from sdar.environments.check_records import description_problems, task_problems
from sdar.episode import Observation, StepOutcome, Task
from sdar.errors import UserError
from sdar.rollout.answers import checked_projection, checked_text, got
from sdar.rollout.guard import GuardedPool, Misbehaviour, guarded
from sdar.rollout.settings import ENVIRONMENT_TIMEOUT_S

_TURNS = 3
_TASKS_PER_SPLIT = 2
_SECONDS = 30.0
"""Of play, after which no further turn is tried."""


def check_ready(environment: Environment, timeout_s: float | None = ENVIRONMENT_TIMEOUT_S) -> None:
    """Ask an environment whether it can be played; one that is not ours also plays a few turns.

    Args:
        environment: just built.
        timeout_s: as in :class:`~sdar.rollout.guard.GuardedPool`.

    Raises UserError for what the environment needs and does not find, such as a server, or for its first answer that
    the protocol does not allow.
    """
    environment.check_ready()
    if type(environment).__module__.partition(".")[0] == "sdar":
        return
    problem = next(problems(environment, timeout_s), None)
    if problem is not None:
        name = got(getattr(environment, "name", type(environment).__name__))
        raise UserError(f"environment {name} cannot be played: {problem}; sdar check says all that is wrong")


def problems(environment: Environment, timeout_s: float | None) -> Iterator[str]:
    """What is wrong with an environment's description, its tasks, and the first turns of a few of them."""
    yield from description_problems(environment)
    by_split: dict[str, Sequence[Task]] = {}
    for split in _asked(lambda: environment.splits()):
        by_split[str(split)] = listed = list(_asked(lambda: environment.tasks(split)))  # noqa: B023 - called at once
        if not listed:
            yield f"split {got(split)} has no tasks"
        for task in listed:
            yield from task_problems(task, split)
    counts = Counter(task.task_id for listed in by_split.values() for task in listed)
    if twice := [task_id for task_id, count in counts.items() if count > 1]:
        yield f"task ids must differ, got {got(twice[0])} more than once"
    tasks = [task for listed in by_split.values() for task in listed[:_TASKS_PER_SPLIT]]
    yield from _play(environment, tasks, timeout_s)


def _asked(call: Callable[[], Any]) -> list[Any]:
    """The list that a method returns."""
    found = guarded(lambda: list(call()))
    if isinstance(found, StepOutcome):
        raise UserError(f"environment: its tasks cannot be listed: {found.error}")
    return found


def _play(environment: Environment, tasks: Sequence[Task], timeout_s: float | None) -> Iterator[str]:
    """Problems of a few turns with responses that a model may give."""
    ends = time.monotonic() + _SECONDS
    with GuardedPool(environment, timeout_s) as pool:
        views: dict[int, Observation] = {}
        for slot, start in enumerate(pool.reset(tasks)):
            yield from _misbehaviour(start, tasks[slot])
            if isinstance(start, Observation):
                views[slot] = start
                yield from _misbehaviour(_text(environment.opening, tasks[slot], start), tasks[slot])
        for turn in range(min(_TURNS, environment.max_turns)):
            if not views or time.monotonic() > ends:
                return
            actions: dict[int, str] = {}
            for slot, view in views.items():
                response = ODD_RESPONSES[(slot + turn * len(tasks)) % len(ODD_RESPONSES)]
                projected = guarded(lambda: checked_projection(environment.project(response)))  # noqa: B023
                yield from _misbehaviour(projected, tasks[slot])
                offered = view.actions and view.actions[turn % len(view.actions)]
                actions[slot] = offered or projected.action  # type: ignore[union-attr]
            for slot, outcome in pool.step(actions).items():
                yield from _misbehaviour(outcome, tasks[slot])
                views[slot] = outcome.observation
                if outcome.done:
                    del views[slot]
                else:
                    yield from _misbehaviour(_text(environment.reply, outcome.observation), tasks[slot])


def _text(write: Callable[..., str], *arguments: Any) -> str | StepOutcome:
    return guarded(lambda: checked_text(write(*arguments), "a prompt"))


def _misbehaviour(answer: Any, task: Task) -> Iterator[str]:
    if isinstance(answer, Misbehaviour):
        yield f"{answer.error} (task {got(task.task_id)})"
