"""Problems of tasks, observations, projections and outcomes, as sentences. Part of ``check_env``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from sdar.environments.base import Projection
from sdar.episode import EndReason, Observation, StepOutcome, Task, is_unicode
from sdar.output.printable import printable

ENVIRONMENTS_ENDS = (EndReason.SUCCESS, EndReason.FAILURE, EndReason.TURN_LIMIT, *(e for e in EndReason if e.is_error))
"""End reasons of environments; the others are for the collector."""

LARGEST_REWARD = 1e12
"""Beyond it, squares of returns and sums over turns leave what float32 holds."""


def description_problems(environment: Any) -> Iterator[str]:
    """Problems of what an environment says of itself."""
    name, max_turns = getattr(environment, "name", None), getattr(environment, "max_turns", None)
    if not isinstance(name, str) or not name or printable(name) != name:
        yield f"name must be a non-empty string, got {name!r}"
    if not isinstance(max_turns, int) or isinstance(max_turns, bool) or max_turns < 1:
        yield f"max_turns must be an integer >= 1, got {max_turns!r}"
    solved: Any = getattr(environment, "solved_return", None)
    if not isinstance(solved, int | float) or not 0 < solved < math.inf:
        yield f"solved_return must be a number > 0, got {solved!r}"


def task_problems(task: Any, split: str) -> Iterator[str]:
    """Problems of a task listed under ``split``."""
    if not isinstance(task, Task):
        yield f"a task of split {split!r} must be a Task, got {task!r}"
        return
    if task.split != split:
        yield f"task {task.task_id!r} of split {split!r} has split={task.split!r}"
    for field in ("task_id", "task_type", "description", "content_hash", "problem"):
        value = getattr(task, field)
        if field == "problem" and value == "":
            continue
        if not isinstance(value, str) or not value:
            yield f"{field} of task {task.task_id!r} must be a non-empty string, got {value!r}"
        elif not is_unicode(value):
            yield f"{field} of task {task.task_id!r} must be Unicode text, got {value!r}, which has a lone surrogate"


def projection_problems(projection: Any, shown: str) -> Iterator[str]:
    """Problems of the projection of the response ``shown``."""
    if not isinstance(projection, Projection):
        yield f"project({shown!r}) must return a Projection, got {projection!r}"
    elif [type(vars(projection)[field]) for field in ("action", "valid")] != [str, bool]:
        yield f"project({shown!r}) must return a Projection of a string and a bool, got {projection!r}"


def observation_problems(view: Any) -> Iterator[str]:
    """Problems of an observation."""
    if not isinstance(view, Observation):
        yield f"{view!r} is not an Observation"
        return
    for field in ("text", "anchor"):
        value = getattr(view, field)
        if not isinstance(value, str):
            yield f"{field} of an observation must be a string, got {value!r}"
        elif not is_unicode(value):
            yield f"{field} of an observation must be Unicode text, got {value!r}, which has a lone surrogate"
    actions: Any = view.actions
    if actions is not None and not (isinstance(actions, tuple) and all(isinstance(action, str) for action in actions)):
        yield f"actions of an observation must be a tuple of strings or None, got {actions!r}"
    results: Any = view.results
    if not (isinstance(results, tuple) and all(is_unicode(result) for result in results)):
        yield f"results of an observation must be a tuple of Unicode texts, got {results!r}"
    elif results and not view.text:
        yield "the text of an observation must say what its results say, got ''"


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and bool(value == value)


def start_problems(start: Any) -> Iterator[str]:
    """Problems of the start of a slot."""
    if not isinstance(start, StepOutcome):
        yield from observation_problems(start)
        return
    if not (start.done and start.end is not None and start.end.is_error):
        yield f"a slot that cannot start must return a done outcome with an error, got {start}"
    yield from outcome_problems(start)


def outcome_problems(outcome: Any) -> Iterator[str]:
    """Problems of an outcome: its parts must be consistent."""
    if not isinstance(outcome, StepOutcome):
        yield f"{outcome!r} is not a StepOutcome"
        return
    yield from observation_problems(outcome.observation)
    for field in ("done", "success"):
        if not isinstance(getattr(outcome, field), bool):
            yield f"{field} of an outcome must be True or False, got {getattr(outcome, field)!r}"
            return
    end: Any = outcome.end
    if end is not None and not isinstance(end, EndReason):
        yield f"the end of an outcome must be an EndReason or None, got {end!r}"
        return
    reward: Any = outcome.reward
    if not _is_number(reward) or abs(reward) > LARGEST_REWARD:
        yield f"a reward must be a number from {-LARGEST_REWARD:g} to {LARGEST_REWARD:g}, got {reward!r}"
    given = f"(done={outcome.done}, success={outcome.success}, end={outcome.end})"
    if outcome.done != (outcome.end is not None):
        yield f"'end' must be set if and only if 'done' is true {given}"
    if outcome.success != (outcome.end is EndReason.SUCCESS):
        yield f"'success' must agree with 'end' {given}"
    if outcome.end is not None and outcome.end not in ENVIRONMENTS_ENDS:
        yield f"the end {str(outcome.end)!r} is reserved for the collector"
    failed = outcome.end is not None and outcome.end.is_error
    if failed != bool(outcome.error):
        yield f"'error' must be set if and only if the end is an error {given}"
    if failed and reward:
        yield f"an error must have reward 0, got {reward}"
    scores: Any = outcome.scores
    if not isinstance(scores, Mapping):
        yield f"the scores must be a mapping of names to numbers, got {scores!r}"
        return
    for name, score in scores.items():
        if not isinstance(name, str) or not _is_number(score) or not 0 <= score <= 1:
            yield f"the score {name!r} must be a number in [0, 1], got {score!r}"
