"""What is wrong with a task, an observation, a projection or an outcome, in sentences. Part of ``check_env``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from sdar.environments.base import Projection
from sdar.episode import EndReason, Observation, StepOutcome, Task

ENVIRONMENTS_ENDS = (EndReason.SUCCESS, EndReason.FAILURE, EndReason.TURN_LIMIT, *(e for e in EndReason if e.is_error))
"""End reasons an environment may give; the others are the collector's."""


def task_problems(task: Task, split: str) -> Iterator[str]:
    """Problems of a task listed under ``split``."""
    if task.split != split:
        yield f"task {task.task_id!r} of split {split!r} says split {task.split!r}"
    for field in ("task_id", "task_type", "description", "content_hash"):
        value = getattr(task, field)
        if not isinstance(value, str) or not value:
            yield f"{field} of task {task.task_id!r} is {value!r}; a text is needed"


def projection_problems(projection: Any, shown: str) -> Iterator[str]:
    """Problems of what ``project`` gave for the response ``shown``."""
    if not isinstance(projection, Projection):
        yield f"project({shown!r}) gives {projection!r}; a Projection is needed"
    elif [type(vars(projection)[field]) for field in ("action", "valid")] != [str, bool]:
        yield f"project({shown!r}) gives {projection!r}; a text and a bool are needed"


def observation_problems(view: Any) -> Iterator[str]:
    """Problems of an observation."""
    if not isinstance(view, Observation):
        yield f"{view!r} is not an Observation"
        return
    for field in ("text", "anchor"):
        value = getattr(view, field)
        if not isinstance(value, str):
            yield f"an observation's {field} is {value!r}; a text is needed"
    actions: Any = view.actions
    if actions is not None and not (isinstance(actions, tuple) and all(isinstance(action, str) for action in actions)):
        yield f"an observation's actions are {actions!r}; a tuple of texts, or None, is needed"


def start_problems(start: Any) -> Iterator[str]:
    """Problems of a slot's answer to ``reset``."""
    if not isinstance(start, StepOutcome):
        yield from observation_problems(start)
        return
    if not (start.done and start.end is not None and start.end.is_error):
        yield f"a slot that cannot start answers {start}; a done outcome with an error is needed"
    yield from outcome_problems(start)


def outcome_problems(outcome: Any) -> Iterator[str]:
    """Problems of an outcome, alone: its parts must agree with one another."""
    if not isinstance(outcome, StepOutcome):
        yield f"{outcome!r} is not a StepOutcome"
        return
    yield from observation_problems(outcome.observation)
    reward: Any = outcome.reward
    if not isinstance(reward, (int, float)) or not math.isfinite(reward):
        yield f"a reward is {reward!r}; a finite number is needed"
    told = f"(done={outcome.done}, success={outcome.success}, end={outcome.end})"
    if outcome.done != (outcome.end is not None):
        yield f"'end' must be set exactly when 'done' is {told}"
    if outcome.success != (outcome.end is EndReason.SUCCESS):
        yield f"'success' must agree with 'end' {told}"
    if outcome.end is not None and outcome.end not in ENVIRONMENTS_ENDS:
        yield f"the end {str(outcome.end)!r} is not for an environment to give"
    failed = outcome.end is not None and outcome.end.is_error
    if failed != bool(outcome.error):
        yield f"'error' must be told exactly when the end is an error {told}"
    if failed and reward:
        yield f"an error came with the reward {reward}"
    for name, score in outcome.scores.items():
        if not isinstance(name, str) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
            yield f"the score {name!r} is {score!r}; a number in [0, 1] is needed"
