"""What the adapters share: loading somebody else's package, and playing its environments without being hurt by them.

Nothing of another library is imported with these modules. Whatever another library's environment raises ends
the episode that it happened in, as a typed error.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, TypeVar

from sdar.config.plugins import is_allowed, is_own
from sdar.environments.asked import ANSWER_S, late
from sdar.environments.base import Environment, PastTurn, Projection
from sdar.environments.check_records import observation_problems, outcome_problems
from sdar.environments.slots import SlotPool, failed, first_action
from sdar.environments.tools import joined
from sdar.environments.worker import TooLateError, Worker
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError, is_interrupt, told, words_of
from sdar.output.printable import printable

State = TypeVar("State")
T = TypeVar("T")

ActionFormat = Literal["tagged", "whole"]
"""``tagged``: the action stands between ``<action>`` and ``</action>``; ``whole``: the response is the action."""

FIRST_SEED = {"train": 0, "valid": 100_000}
"""Of each split where a task is a seed. A split has at most 100,000 tasks, so none is in both."""

TAGGED = "In every turn, give exactly one action between <action> and </action>."


def required(module: str, extra: str) -> Any:
    """A module of another library. UserError names the extra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"environment={extra} needs packages that are not installed ({words_of(error)}); install them with: "
            f"pip install 'sdar[{extra}]'"
        ) from error


def trusted(dotted: str, setting: str) -> None:
    """Refuse a name in a package that the user did not allow: a configuration may come from somebody else."""
    if is_own(dotted) or not is_allowed(dotted):
        package = dotted.partition(".")[0]
        raise UserError(
            f"{setting} names the package {package}, whose code would run; if you trust it, add --allow {package}"
        )


def named(dotted: str, setting: str) -> Any:
    """The class or function of that dotted name, which an allowed package has to define.

    Raises:
        UserError: it is not allowed, or cannot be imported.
    """
    trusted(dotted, setting)
    module, _, name = dotted.rpartition(".")
    found = getattr(imported(module, setting), name, None)
    if not callable(found):
        raise UserError(f"{setting} must be the dotted name of a class or a function, got {dotted}")
    where = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    trusted(f"{where[0]}.{where[1]}", setting)  # it may have been imported from elsewhere
    return found


def imported(module: str, setting: str) -> Any:
    """An allowed module. UserError where it cannot be imported, whatever it raises."""
    try:
        return importlib.import_module(module)
    except UserError:
        raise
    except BaseException as error:  # it may run anything at its import
        if is_interrupt(error):
            raise
        raise UserError(f"{setting}: {module} cannot be imported: {told(error)}") from error


class ForeignPool(SlotPool[State]):
    """Episodes that live in objects of another library, one object per slot.

    Whatever ``open``, ``first`` or ``play`` raise becomes a done outcome of that slot, and so does what they return and
    the protocol does not allow. UserError passes: it is about settings, and no episode could be played.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opened: deque[State | StepOutcome] = deque()  # of a reset: not started yet, in the order of its tasks

    @abstractmethod
    def open(self, task: Task) -> State:
        """The object that one episode lives in."""

    def begin(self, opened: Sequence[tuple[State, Task]]) -> None:
        """What can be done for all episodes of a reset side by side, before ``first``, which tells what failed."""

    @abstractmethod
    def first(self, state: State, task: Task) -> Observation:
        """Start the episode."""

    @abstractmethod
    def play(self, state: State, action: str) -> StepOutcome:
        """Take one action."""

    def release(self, state: State) -> None:
        """Give up the object of an episode that is over."""

    def end_of(self, error: BaseException) -> EndReason:
        """The reason that an error ends an episode with."""
        return EndReason.ERROR_ENVIRONMENT

    def start(self, task: Task) -> tuple[State, Observation] | StepOutcome:
        """See :class:`SlotPool`."""
        state = self._opened[0]
        if isinstance(state, StepOutcome):
            self._opened.popleft()
            return state
        seen = self._guarded(lambda: _without(observation_problems, self.first(state, task)))
        self._opened.popleft()  # not before: if the start is interrupted, close() releases it
        if isinstance(seen, StepOutcome):
            self._let_go(state)
            return seen
        return state, seen

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """See :class:`SlotPool`."""
        return {slot: self._played(self.states[slot], action) for slot, action in actions.items()}

    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """See :class:`SlotPool`."""
        ForeignPool.close(self)
        for task in tasks:
            self._opened.append(self._guarded(partial(self.open, task)))
        pairs = zip(self._opened, tasks, strict=True)
        found = [(state, task) for state, task in pairs if not isinstance(state, StepOutcome)]
        self._guarded(lambda: self.begin(found))
        return super().reset(tasks)

    def close(self) -> None:
        """Release all episodes, and those that a reset opened and did not start. Idempotent."""
        while self._opened:
            if not isinstance(state := self._opened.popleft(), StepOutcome):
                self._let_go(state)
        for state in self.states.values():
            self._let_go(state)
        super().close()

    def _played(self, state: State, action: str) -> StepOutcome:
        outcome = self._guarded(lambda: _without(outcome_problems, self.play(state, action)))
        if outcome.done:
            self._let_go(state)
        return outcome

    def _let_go(self, state: State) -> None:
        self._guarded(lambda: self.release(state))  # an episode that is over is worth no less

    def _guarded(self, call: Callable[[], T]) -> T | StepOutcome:
        try:
            return call()
        except UserError:
            raise
        except BaseException as error:  # sys.exit, too: the process is not the environment's to end
            if is_interrupt(error):
                raise
            return failed(printable(" ".join(told(error).split())), self.end_of(error))


def _without(problems: Callable[[Any], Any], answer: T) -> T:
    problem = next(problems(answer), None)
    if problem is not None:
        raise ValueError(problem)
    return answer


class ForeignEnvironment(Environment):
    """An environment of another library: tasks, and prompts of rules, task and observation.

    ``check_ready`` starts one episode, for which it has a minute.
    """

    action_format: ActionFormat = "tagged"
    SPLITS: ClassVar[tuple[str, ...]] = ("train", "valid")

    def splits(self) -> tuple[str, ...]:
        """``train`` and ``valid``."""
        return self.SPLITS

    def per_split(self, num_tasks: Sequence[int]) -> dict[str, int]:
        """The numbers of tasks by split. UserError: there is not one for each."""
        if len(num_tasks) != len(self.SPLITS):
            raise UserError(f"environment.num_tasks must have two numbers, for train and valid, got {list(num_tasks)}")
        return dict(zip(self.SPLITS, num_tasks, strict=True))

    def known(self, split: str) -> str:
        """The split. UserError where there is no such split."""
        if split not in self.splits():
            raise UserError(f"split must be one of {', '.join(self.splits())}, got {split!r}")
        return split

    def check_ready(self) -> None:
        """Start one episode; UserError where that is not possible."""
        worker = Worker(ANSWER_S)
        try:
            task = self.tasks(self.splits()[0])[0]  # a data set may take longer to load
            start = worker.call(lambda: self._start(task))
        except TooLateError:
            raise self._unplayable(late("the start of an episode", ANSWER_S)) from None
        except UserError:
            raise
        except BaseException as error:  # such as a data set that cannot be loaded
            if is_interrupt(error):
                raise
            raise self._unplayable(told(error)) from error
        finally:
            worker.close()
        if isinstance(start, StepOutcome):
            raise self._unplayable(start.error)

    def _start(self, task: Task) -> Observation | StepOutcome:
        pool = self.open_pool()
        try:
            return pool.reset([task])[0]
        finally:
            pool.close()

    def _unplayable(self, reason: str | None) -> UserError:
        return UserError(f"environment={self.name} cannot be played: {reason}")

    def rules(self, task: Task) -> str:
        """What stands in front of a task: the format of a response, and what can be done."""
        return ""

    def opening(self, task: Task, observation: Observation) -> str:
        """Rules, task, first observation."""
        return joined(self.rules(task), task.description, observation.text)

    def reply(self, observation: Observation) -> str:
        """The observation."""
        return observation.text

    @cached_property
    def _first(self) -> dict[str, str]:
        """What an episode of a task began with, beside its description."""
        return {}

    def window_prompt(self, task: Task, past: Sequence[PastTurn], observation: Observation, step: int) -> str:
        """As in the base class, after the rules; later turns are told what the episode began with, too."""
        if step == 0:
            self._first[task.task_id] = observation.text
            return self.opening(task, observation)
        first = "" if len(past) == step else self._first.get(task.task_id, "")
        told = task if first in ("", task.description) else replace(task, description=joined(task.description, first))
        return joined(self.rules(task), super().window_prompt(told, past, observation, step))

    def project(self, response: str) -> Projection:
        """The whole response, or the text between the first action tags; without them "", which is not valid."""
        if self.action_format == "whole":
            return Projection(response, True)
        action = first_action(response)
        return Projection(action or "", action is not None)
