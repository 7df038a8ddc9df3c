"""Whether an environment can be played at all, found out before anything else is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sdar.environments.asked import late
from sdar.environments.base import Environment
from sdar.environments.check import ODD_RESPONSES
from sdar.environments.check_records import description_problems, task_problems
from sdar.environments.place import strayed
from sdar.environments.worker import TooLateError, Worker
from sdar.episode import Observation, Task
from sdar.errors import INTERRUPTS, UserError, told
from sdar.output.printable import printable
from sdar.rollout.answers import checked_preface, checked_projection, checked_prompt, got
from sdar.rollout.guard import GuardedPool, Misbehaviour
from sdar.rollout.settings import ENVIRONMENT_TIMEOUT_S

_TURNS = 3
_TASKS_PER_SPLIT = 2
_SECONDS = 30.0
"""Of play, after which no further turn is tried."""

T = TypeVar("T")


def check_ready(environment: Environment, timeout_s: float | None = ENVIRONMENT_TIMEOUT_S) -> None:
    """Ask an environment whether it can be played; one that is not ours also plays a few turns.

    Args:
        environment: just built.
        timeout_s: longest time in seconds for one answer of an environment that is not ours; None: no limit.

    Raises UserError for what the environment needs and does not find, such as a server, or for its first answer that
    the protocol does not allow.
    """
    if type(environment).__module__.partition(".")[0] == "sdar":
        environment.check_ready()
        return
    trial = _Trial(environment, timeout_s)
    problem = trial.first_problem()
    if problem is not None:
        raise UserError(f"environment {trial.name} cannot be played: {problem}; sdar check says all that is wrong")


class _UnansweredError(Exception):
    """A method raised, or did not answer in time. The message is a clause that says which one."""


class _Trial:
    """A first look at an environment that nothing is known of."""

    def __init__(self, environment: Environment, timeout_s: float | None) -> None:
        self.environment = environment
        self.timeout_s = timeout_s
        self.name = got(type(environment).__name__)
        self._worker = Worker(timeout_s)

    def first_problem(self) -> str | None:
        """What is wrong first, in a clause; None: nothing."""
        try:
            return next(self._problems(), None)
        except _UnansweredError as error:
            return str(error)
        except (UserError, *INTERRUPTS):
            raise
        except BaseException as error:  # an object that it answered may raise, too
            return f"what it answers raises {told(error)}"
        finally:
            self._worker.close()

    def _ask(self, name: str, call: Callable[[], T]) -> T:
        """The answer of a method. UserError passes: it is the environment's own word."""
        try:
            return self._worker.call(call)
        except TooLateError:
            raise _UnansweredError(late(name, self.timeout_s)) from None
        except (UserError, *INTERRUPTS):
            raise
        except BaseException as error:
            raise _UnansweredError(f"{name} raises {told(error)}") from error

    def _problems(self) -> Iterator[str]:
        """What is wrong with the description, the tasks, and the first turns of a few of them."""
        environment = self.environment
        self._ask("check_ready", lambda: environment.check_ready())
        yield from self._ask("the description", lambda: list(description_problems(environment)))
        self.name = got(self._ask("name", lambda: environment.name))
        splits: Any = self._ask("splits", lambda: environment.splits())
        yield from _splits_problems(splits)
        yield from self._choices_problems(splits)
        by_split = {split: self._tasks(split) for split in splits}
        for split, tasks in by_split.items():
            if not tasks:
                yield f"split {got(split)} has no tasks"
            for task in tasks:
                yield from task_problems(task, split)
            if _hashes(tasks) != _hashes(self._tasks(split)):
                yield f"tasks must list the same tasks of split {got(split)} in the same order every time"
        counts = Counter(task.task_id for tasks in by_split.values() for task in tasks)
        if twice := [task_id for task_id, count in counts.items() if count > 1]:
            yield f"task ids must differ, got {got(twice[0])} more than once"
        first = [task for tasks in by_split.values() for task in tasks[:_TASKS_PER_SPLIT]]
        yield from _play(environment, first, self.timeout_s)

    def _tasks(self, split: str) -> list[Task]:
        """The tasks of a split, which must have a length and numbers."""

        def listed() -> list[Task]:
            tasks = self.environment.tasks(split)
            found = list(tasks)
            return found if len(tasks) == 0 else [tasks[0], *found[1:]]

        return self._ask("tasks", listed)

    def _choices_problems(self, splits: Sequence[str]) -> Iterator[str]:
        """Problems of what is chosen of the splits, and of the players for the final table."""
        default: Any = self._ask("default_split", lambda: self.environment.default_split)
        if not (default is None or isinstance(default, str)):
            yield f"default_split must be a text or None, got {got(default)}"
        try:
            training: Any = self._ask("training_split", lambda: self.environment.training_split())
        except UserError:  # data for evaluation only
            training = splits[0]
        if not (isinstance(training, str) and training in splits):
            yield f"training_split must return one of the splits, got {got(training)}"
        players: Any = self._ask("baselines", lambda: self.environment.baselines())
        if not (isinstance(players, Mapping) and all(_is_name(name) and callable(players[name]) for name in players)):
            yield f"baselines must return functions by name, got {got(players)}"


def _splits_problems(splits: Any) -> Iterator[str]:
    listed = isinstance(splits, tuple | list) and len(splits) > 0
    if not (listed and all(map(_is_name, splits)) and len(set(splits)) == len(splits)):
        yield f"splits must return a tuple of different names, got {got(splits)}"


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and printable(value) == value


def _hashes(tasks: Sequence[Task]) -> list[str]:
    return [task.content_hash for task in tasks]


def _play(environment: Environment, tasks: Sequence[Task], timeout_s: float | None) -> Iterator[str]:
    """Problems of a few turns with responses that a model may give."""
    ends = time.monotonic() + _SECONDS
    pool = GuardedPool(environment, timeout_s)
    with pool:
        views: dict[int, Observation] = {}
        for slot, start in enumerate(pool.reset(tasks)):
            yield from _misbehaviour(start, tasks[slot])
            if isinstance(start, Observation):
                views[slot] = start
        prefaces = {slot: partial(checked_preface, environment.preface, tasks[slot]) for slot in views}
        for slot, preface in pool.ask("preface", prefaces).items():
            yield from _misbehaviour(preface, tasks[slot])
        openings = {slot: partial(checked_prompt, environment.opening, tasks[slot], views[slot]) for slot in views}
        for slot, text in pool.ask("opening", openings).items():
            yield from _misbehaviour(text, tasks[slot])
        for turn in range(min(_TURNS, environment.max_turns)):
            if not views or time.monotonic() > ends:
                break
            responses = {slot: ODD_RESPONSES[(slot + turn * len(tasks)) % len(ODD_RESPONSES)] for slot in views}
            projected = {slot: partial(_projected, environment, response) for slot, response in responses.items()}
            actions: dict[int, str] = {}
            for slot, projection in pool.ask("project", projected).items():
                yield from _misbehaviour(projection, tasks[slot])
                offered = views[slot].actions
                actions[slot] = offered[turn % len(offered)] if offered else projection.action  # type: ignore[union-attr]
            for slot, outcome in pool.step(actions).items():
                yield from _misbehaviour(outcome, tasks[slot])
                views[slot] = outcome.observation
                if outcome.done:
                    del views[slot]
            replies = {slot: partial(checked_prompt, environment.reply, view) for slot, view in views.items()}
            for slot, text in pool.ask("reply", replies).items():
                yield from _misbehaviour(text, tasks[slot])
    if pool.strayed is not None:
        yield strayed(pool.strayed)


def _projected(environment: Environment, response: str) -> Any:
    return checked_projection(environment.project(response))


def _misbehaviour(answer: Any, task: Task) -> Iterator[str]:
    if isinstance(answer, Misbehaviour):
        yield f"{answer.error} (task {got(task.task_id)})"
