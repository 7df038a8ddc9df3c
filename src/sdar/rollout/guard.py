"""A pool with typed failures: an error of one slot ends that slot and never becomes a reward.

Whatever an environment does - raise, exit, answer nonsense, or not answer at all - ends the episodes it concerns with a
reason that says what was wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from sdar.environments.asked import late
from sdar.environments.base import Environment, EnvironmentPool
from sdar.environments.place import WorkingDirectory
from sdar.environments.worker import TooLateError, Worker
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError, is_interrupt, told
from sdar.output.printable import printable
from sdar.rollout.answers import AnswerError, checked_observation, checked_outcome, got, plain
from sdar.rollout.settings import ENVIRONMENT_TIMEOUT_S

log = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")
NOTHING = Observation(text="", actions=None, anchor="")

MOST_LATE = 2
"""Pools that may be late in one collection; the episodes after that are not tried: each would cost the deadline."""
RELEASE_S = 10.0
"""How long a pool that is left early may take to end what it is doing, and to close."""
_LONGEST_ERROR = 500
"""Characters of an error's text that are kept."""


class _LeftError(Exception):
    """Nobody waits for the answers any more."""


class Misbehaviour(StepOutcome):
    """The error of an environment that raised, answered nonsense or did not answer, and did not report it itself."""


def error_outcome(
    error: BaseException | str,
    end: EndReason = EndReason.ERROR_ENVIRONMENT,
    kind: type[StepOutcome] = StepOutcome,
) -> StepOutcome:
    """A done outcome without reward that carries an error, as one line that any terminal may show."""
    if isinstance(error, BaseException):
        error = str(error) if isinstance(error, AnswerError) else told(error)
    text = printable(" ".join(error.split()))
    if len(text) > _LONGEST_ERROR:
        text = text[: _LONGEST_ERROR - 3] + "..."
    return kind(NOTHING, reward=0.0, done=True, success=False, end=end, error=text)


def guarded(call: Callable[[], T]) -> T | StepOutcome:
    """The call's result, or an error outcome for anything it raises except UserError and interrupts.

    ``sys.exit`` in an environment ends an episode and not the run.
    """
    try:
        return call()
    except UserError:
        raise
    except BaseException as error:  # an environment may raise anything; the episode's end reason records it
        if is_interrupt(error):
            raise
        log.debug("the environment raised an error", exc_info=True)
        return error_outcome(error, kind=Misbehaviour)


def answers_in_time(name: str, calls: Mapping[K, Callable[[], T]], timeout_s: float | None) -> dict[K, T | StepOutcome]:
    """What calls of a method that needs no pool answer, one after the other, or their error outcomes.

    ``timeout_s``: longest time in seconds for each; after ``MOST_LATE`` late ones no other is tried. None: no limit.
    """
    worker, times_late = Worker(timeout_s), 0
    answers: dict[K, T | StepOutcome] = {}
    too_late = error_outcome(late(name, timeout_s or 0), kind=Misbehaviour)
    for key, call in calls.items():
        answers[key] = too_late
        if times_late < MOST_LATE:
            try:
                answers[key] = worker.call(partial(guarded, call))
            except TooLateError:
                times_late += 1
    worker.close()
    return answers


class GuardedPool(AbstractContextManager["GuardedPool"]):
    """A pool of an environment that never raises for an error inside an episode, and never hangs.

    The process returns to its working directory wherever the environment has gone; :attr:`strayed` says where that was.

    It is a context manager: the pool is closed in all cases, including interrupts. A step that is still running then is
    given ``RELEASE_S`` to end, and no other slot is stepped after it.

    Args:
        environment: whose pool is opened, in the first ``reset``.
        timeout_s: longest time in seconds that the environment may take to open a pool, to reset it, for a step (of all
            slots together where the pool is batched), and for a text or a projection. The episodes of a pool that is
            late end by an error, and the next ``reset`` opens another one. None: no limit.
    """

    def __init__(self, environment: Environment, timeout_s: float | None = ENVIRONMENT_TIMEOUT_S) -> None:
        self._environment = environment
        self._timeout_s = timeout_s
        self._worker = Worker(timeout_s)
        self._pool: _CheckedPool | None = None
        self._late = 0
        self._left = False
        self._place = WorkingDirectory()
        self.strayed: str | None = None
        self._given_up = error_outcome("the pool was not reset")

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        pool, self._pool = self._pool, None
        try:
            if kind is not None:
                self._left = True
                self._worker.settle(RELEASE_S)
            if pool is not None:
                _close(pool.pool, self._worker, None if kind is None else RELEASE_S)
        finally:
            self._worker.close()
            self._come_back()

    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Start one episode per task; a task that cannot start gives a done outcome with the error."""
        if self._late >= MOST_LATE:
            return [self._given_up] * len(tasks)
        if self._pool is None:
            opened = self._call("open_pool", lambda: guarded(self._opened))
            if isinstance(opened, StepOutcome):
                self._given_up = opened
                return [opened] * len(tasks)
            self._pool = opened
        pool = self._pool
        started = self._call("reset", lambda: pool.reset(tasks))
        return [started] * len(tasks) if isinstance(started, StepOutcome) else started

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Take one action per given slot, and return its outcome. Slots are the positions given to ``reset``."""
        return self.begin_step(actions)()

    def begin_step(self, actions: Mapping[int, str]) -> Callable[[], dict[int, StepOutcome]]:
        """Begin a :meth:`step`. What is returned waits for it and returns the outcomes.

        Nothing else may be asked of the pool in between.
        """
        pool = self._pool
        if pool is None:
            return lambda: dict.fromkeys(actions, self._given_up)
        return self._begin_each("step", actions, lambda outcomes: pool.step(actions, outcomes))

    def ask(self, name: str, calls: Mapping[int, Callable[[], T]]) -> dict[int, T | StepOutcome]:
        """What a method of the environment answers for each slot, or the error outcome that ends its episode.

        All calls are handed over together: one of them alone would cost more than a text or a projection does.
        """
        if self._pool is None:
            return dict.fromkeys(calls, self._given_up)

        def answer(answers: dict[int, T | StepOutcome]) -> None:
            for slot, call in calls.items():
                self._go_on()
                answers[slot] = guarded(call)

        return self._begin_each(name, calls, answer)()

    def _begin_each(
        self, name: str, slots: Iterable[int], fill: Callable[[dict[int, T | StepOutcome]], None]
    ) -> Callable[[], dict[int, T | StepOutcome]]:
        """Let ``fill`` enter answers for the slots one after the other. What is returned waits for them.

        The slots that it was too late for have an error.
        """
        answers: dict[int, T | StepOutcome] = {}
        filled = self._worker.begin(lambda: fill(answers))

        def wait() -> dict[int, T | StepOutcome]:
            too_late = self._in_time(name, filled)
            found = dict(answers)  # a thread that was given up may still come back
            return found if too_late is None else {slot: found.get(slot, too_late) for slot in slots}

        return wait

    def _opened(self) -> _CheckedPool:
        pool: Any = self._environment.open_pool()
        if not all(callable(getattr(pool, name, None)) for name in ("reset", "step", "close")):
            raise AnswerError(f"open_pool must return an EnvironmentPool, got {got(pool)}")
        return _CheckedPool(pool, self._go_on)

    def _go_on(self) -> None:
        """A sign of life between two calls of the environment, of which there are no more where the pool was left."""
        if self._left:
            raise _LeftError
        self._worker.alive()

    def _in_place(self, result: Callable[[], T]) -> T:
        try:
            return result()
        finally:
            self._come_back()

    def _come_back(self) -> None:
        strayed = self._place.restore()
        if strayed is not None and self.strayed is None:
            self.strayed = strayed
            log.warning(
                "the environment changed the working directory to %s; it was set back, because all episodes and the "
                "run's own files share it",
                printable(strayed),
            )

    def _call(self, name: str, call: Callable[[], T]) -> T | StepOutcome:
        return self._in_time(name, self._worker.begin(call))

    def _in_time(self, name: str, result: Callable[[], T]) -> T | StepOutcome:
        """A call's result, or an error outcome where it was late: its pool and its thread are then given up."""
        try:
            return self._in_place(result)
        except TooLateError:
            self._late += 1
            self._given_up = error_outcome(late(name, self._timeout_s), kind=Misbehaviour)
            pool, self._pool, self._worker = self._pool, None, Worker(self._timeout_s)
            if pool is not None:
                _close(pool.pool, self._worker, RELEASE_S)
            return self._given_up


def _close(pool: EnvironmentPool, worker: Worker, seconds: float | None) -> None:
    """Close a pool, which may neither raise nor take longer than its time: what was played is worth no less."""
    try:
        worker.call(pool.close, seconds)
    except TooLateError:
        log.warning("close of the environment's pool did not answer")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an environment may raise anything
        log.warning("close of the environment's pool: %s", error_outcome(error).error)


class _CheckedPool:
    """A pool whose answers are checked one by one, and that sorts out the tasks at fault when a reset raises."""

    def __init__(self, pool: EnvironmentPool, go_on: Callable[[], None]) -> None:
        self.pool = pool
        self._go_on = go_on
        self._batched = bool(getattr(pool, "batched", False))
        self._slot_of: dict[int, int] = {}

    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """See :class:`GuardedPool`."""
        self._slot_of = {position: position for position in range(len(tasks))}
        started = guarded(lambda: self._started(tasks))
        return self._without_culprits(tasks) if isinstance(started, StepOutcome) else started

    def step(self, actions: Mapping[int, str], outcomes: dict[int, StepOutcome]) -> None:
        """Add the outcomes one call after the other, so that those before a call that is late are known."""
        for part in [dict(actions)] if self._batched else [{position: text} for position, text in actions.items()]:
            self._go_on()
            of_slot = {self._slot_of[position]: text for position, text in part.items()}
            stepped = guarded(partial(self._stepped, of_slot))
            for position in part:
                outcomes[position] = stepped if isinstance(stepped, StepOutcome) else stepped[self._slot_of[position]]

    def _started(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        self._go_on()
        given: Any = self.pool.reset(list(tasks))  # a list that is its own: it may change it
        if not isinstance(given, Iterable):
            raise AnswerError(f"reset must return one observation per task, got {got(given)}")
        answers = list(islice(given, len(tasks) + 1))
        if len(answers) != len(tasks):
            many = "more" if len(answers) > len(tasks) else len(answers)
            raise AnswerError(f"reset must return one observation per task, got {many} for {len(tasks)} tasks")
        return [guarded(partial(_start, answer)) for answer in answers]

    def _without_culprits(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Find the tasks at fault after a reset of all tasks raised, and start the others together."""
        alone = [guarded(partial(self._started, [task])) for task in tasks]
        answers = [found if isinstance(found, StepOutcome) else found[0] for found in alone]
        sound = [position for position, answer in enumerate(answers) if not isinstance(answer, StepOutcome)]
        together = guarded(lambda: self._started([tasks[position] for position in sound])) if sound else []
        self._slot_of = {position: slot for slot, position in enumerate(sound)}
        for slot, position in enumerate(sound):
            answers[position] = together if isinstance(together, StepOutcome) else together[slot]
        return answers

    def _stepped(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        given: Any = self.pool.step(dict(actions))
        if not isinstance(given, Mapping):
            raise AnswerError(f"step must return outcomes by slot, got {got(given)}")
        found = dict(islice(given.items(), len(actions) + 1))
        if others := found.keys() - actions.keys():
            raise AnswerError(f"step must return the slots it was given, got {got(sorted(others, key=str))}, too")
        return {slot: guarded(partial(_outcome, found.get(slot))) for slot in actions}


def _start(answer: Any) -> Observation | StepOutcome:
    """A first observation, or the error of a slot that cannot start."""
    if not isinstance(answer, StepOutcome):
        return checked_observation(answer, "an answer of reset")
    outcome = _outcome(answer)
    if outcome.error is None:
        raise AnswerError(f"a slot that cannot start must be done with an error, got {got(answer)}")
    return outcome


def _outcome(answer: Any) -> StepOutcome:
    """The outcome with its end reason; an outcome with an error is done, unsuccessful and without reward."""
    if answer is None:
        raise AnswerError("step must return an outcome for this slot, got None")
    if isinstance(answer, StepOutcome):
        answer = plain(answer, StepOutcome)
        failed = isinstance(answer.end, EndReason) and answer.end.is_error
        if failed or answer.error is not None:
            end = answer.end if failed and answer.end is not None else EndReason.ERROR_ENVIRONMENT
            error = answer.error or "the environment reported an error"
            return error_outcome(error if isinstance(error, str) else got(error), end)
    return checked_outcome(answer)
