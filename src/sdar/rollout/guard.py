"""A pool with typed failures: an error of one slot ends that slot and never becomes a reward."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from sdar.environments.base import Environment, EnvironmentPool
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
NOTHING = Observation(text="", actions=None, anchor="")


def error_outcome(error: BaseException | str, end: EndReason = EndReason.ERROR_ENVIRONMENT) -> StepOutcome:
    """A done outcome without reward that carries an error."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return StepOutcome(NOTHING, reward=0.0, done=True, success=False, end=end, error=text)


def guarded(call: Callable[[], T]) -> T | StepOutcome:
    """The call's result, or an error outcome for any exception except UserError and interrupts."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # an environment may raise anything; the episode's end reason records it
        log.debug("the environment raised an error", exc_info=True)
        return error_outcome(error)


class GuardedPool(AbstractContextManager["GuardedPool"]):
    """A pool of an environment that never raises for an error inside an episode.

    It is a context manager: the pool is closed in all cases, including interrupts.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._pool: EnvironmentPool = environment.open_pool()
        self._slot_of: dict[int, int] = {}

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Start one episode per task; a task that cannot start gives a done outcome with the error."""
        self._slot_of = {position: position for position in range(len(tasks))}
        started = guarded(lambda: self._reset_pool(tasks))
        return self._reset_without_culprits(tasks) if isinstance(started, StepOutcome) else started

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Take one action per given slot, and return its outcome. Slots are the positions given to ``reset``."""
        if self._pool.batched:
            return self._step_together(actions)
        return {p: self._step_together({p: action})[p] for p, action in actions.items()}

    def _reset_pool(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        answers = list(self._pool.reset(tasks))
        if len(answers) != len(tasks):
            raise ValueError(f"reset must return one observation per task, got {len(answers)} for {len(tasks)} tasks")
        return [_checked(answer) if isinstance(answer, StepOutcome) else answer for answer in answers]

    def _reset_without_culprits(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Find the tasks at fault after a reset of all tasks raised, and start the others together."""
        alone = [guarded(partial(self._reset_pool, [task])) for task in tasks]
        answers = [found if isinstance(found, StepOutcome) else NOTHING for found in alone]
        sound = [position for position, found in enumerate(alone) if not isinstance(found, StepOutcome)]
        together = guarded(lambda: self._reset_pool([tasks[position] for position in sound])) if sound else []
        self._slot_of = {position: slot for slot, position in enumerate(sound)}
        for slot, position in enumerate(sound):
            answers[position] = together if isinstance(together, StepOutcome) else together[slot]
        return answers

    def _step_together(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        stepped = guarded(lambda: self._pool.step({self._slot_of[p]: action for p, action in actions.items()}))
        if isinstance(stepped, StepOutcome):
            return dict.fromkeys(actions, stepped)
        return {position: _checked(stepped.get(self._slot_of[position])) for position in actions}


def _checked(outcome: StepOutcome | None) -> StepOutcome:
    """The outcome with its end reason; an outcome with an error is done, unsuccessful and without reward."""
    if outcome is None:
        return error_outcome("the pool returned no outcome for this slot")
    if outcome.error is not None or (outcome.end is not None and outcome.end.is_error):
        end = outcome.end if outcome.end is not None and outcome.end.is_error else EndReason.ERROR_ENVIRONMENT
        return error_outcome(outcome.error or "the environment reported an error", end)
    if not math.isfinite(outcome.reward):
        return error_outcome(f"the reward must be finite, got {outcome.reward}")
    if outcome.done and outcome.end is None:
        end = EndReason.SUCCESS if outcome.success else EndReason.FAILURE
        return StepOutcome(outcome.observation, outcome.reward, True, outcome.success, outcome.scores, end)
    return outcome
