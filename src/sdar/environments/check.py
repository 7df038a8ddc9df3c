"""A checker for environments: whether a class implements the protocol of :mod:`sdar.environments.base` correctly.

All problems are reported at once, one sentence each. The checks cover what training relies on: determinism (equal
curves for equal seeds), independent episodes (for groups), ids and contents that no two splits share (for panels), and
errors that never look like rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from sdar.config.fields import AtLeastOne, Positive, checked
from sdar.environments import check_records as records
from sdar.environments.asked import ANSWER_S, asked, late
from sdar.environments.base import Environment, EnvironmentPool, PastTurn
from sdar.environments.place import WorkingDirectory, strayed
from sdar.environments.task_list import TaskList, shared_tasks
from sdar.environments.worker import TooLateError, Worker
from sdar.episode import Observation, Preface, StepOutcome, Task
from sdar.errors import UserError, is_interrupt, told
from sdar.randomness import keyed_generator

ODD_RESPONSES = (
    "",
    " \n\t",
    "<think>hm</think><action>look</action>",
    "<action>open</action><action>close</action>",
    "<action>never closed",
    "</action><action>",
    "<search>who?</search>",
    "no tags at all, and a {brace} or %s two",
    "éß漢字🙂\x00",
    "x" * 5000,
)
"""Responses that a model may give. Each must be projected, and its action must have an outcome."""

_LOOKED_AT = 10_000
"""Tasks of a :class:`TaskList` that are checked; such a list stands for more than memory holds."""


class EnvironmentCheckError(AssertionError):
    """An environment breaks the protocol. ``name`` is its own, and ``problems`` holds one sentence per problem."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.name, self.problems = name, tuple(problems)
        lines = "".join(f"\n- {problem}" for problem in problems)
        super().__init__(f"environment {name!r} breaks the protocol:{lines}")


@dataclass(frozen=True)
class CheckReport:
    """Statistics of a passed check: tasks played, steps, ended episodes, experts that won."""

    tasks: int
    steps: int
    ends: int
    experts: int


@checked
def check_env(
    environment: Environment,
    *,
    tasks_per_split: AtLeastOne = 4,
    max_steps: AtLeastOne = 20,
    seed: int = 0,
    unplayable: Task | None = None,
    timeout_s: Positive | None = ANSWER_S,
) -> CheckReport:
    """Check an environment against the protocol.

    Args:
        environment: the environment; it is played but not modified.
        tasks_per_split: number of tasks of each split to play, spread over the split.
        max_steps: turns of each random walk, at most ``environment.max_turns``.
        seed: seed of the random walks.
        unplayable: a task that cannot start, to check that its slot, and no other, returns an error.
        timeout_s: longest time in seconds that the environment or a pool may take for one answer. The check runs in a
            thread of its own, which is given up when an answer is late. None: no limit, in the caller's thread.

    Raises :class:`EnvironmentCheckError` with all problems, and UserError for an argument out of range.
    """
    worker, place = Worker(timeout_s), WorkingDirectory()
    checker = _Checker(environment, seed, worker.alive)
    try:
        worker.call(lambda: checker.check_whatever_happens(tasks_per_split, max_steps, unplayable))
        problems = list(checker.problems)
    except TooLateError:  # the thread that is given up may still come back and find more
        problems = [*checker.problems, late(checker.calling, timeout_s)]
    finally:
        worker.close()
        elsewhere = place.restore()
    if elsewhere is not None:
        problems.append(strayed(elsewhere))
    if problems:
        raise EnvironmentCheckError(checker.name, list(dict.fromkeys(problems)))
    return CheckReport(checker.tasks, checker.steps, checker.ends, checker.experts)


T = TypeVar("T")
Start = Observation | StepOutcome
Walk = tuple[Start, list[tuple[str, StepOutcome]]]
"""The start of a slot, and its actions with their outcomes."""


class _Checker:
    def __init__(self, environment: Environment, seed: int, alive: Callable[[], None]) -> None:
        self.environment = asked(environment, self.ask)
        self.seed = seed
        self.alive = alive
        self.name, self.calling, self.raised = "?", "the environment", True
        self.problems: list[str] = []
        self.tasks = self.steps = self.ends = self.experts = 0

    def ask(self, name: str, call: Callable[[], T]) -> T:
        """The answer of a method. Its name is kept for the case that there is none."""
        self.calling, self.raised = name, False
        self.alive()
        try:
            return call()
        except BaseException:
            self.raised = True
            raise

    def check_whatever_happens(self, per_split: int, max_steps: int, unplayable: Task | None) -> None:
        """Everything; what ends the check is a problem, too."""
        try:
            self.name = str(getattr(self.environment, "name", "?"))
            self.check_all(per_split, max_steps, unplayable)
        except UserError:
            raise
        except BaseException as error:  # whatever an environment does, it is told and not shown as a traceback
            if is_interrupt(error):
                raise
            what = f"{self.calling} raises" if self.raised else f"what {self.calling} returned cannot be used:"
            self.problems.append(f"{what} {told(error)}")

    def check_all(self, per_split: int, max_steps: int, unplayable: Task | None) -> None:
        """Everything, in the order in which one thing is needed for the next."""
        self.note(records.description_problems(self.environment))
        tasks = self.check_tasks(per_split)
        self.tasks = len(tasks)
        for response in ODD_RESPONSES:
            self.projected(response)
        if not self.problems:  # otherwise there may be no tasks or actions to play
            self.check_play(tasks, min(max_steps, self.environment.max_turns))
            self.check_experts(tasks)
            if unplayable is not None:
                self.check_unplayable(tasks[0], unplayable)

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.problems.append(problem)

    def note(self, problems: Iterable[str]) -> None:
        self.problems.extend(problems)

    # Tasks, projection -----------------------------------------------------------------------------------------

    def check_tasks(self, per_split: int) -> list[Task]:
        """Check every task, or many of a list that is too long for that, and return a few of each split."""
        splits = self.environment.splits()
        good = isinstance(splits, tuple) and len(splits) > 0 and len(set(splits)) == len(splits)
        self.expect(good, f"splits() must return a tuple of distinct names, got {splits!r}")
        by_split = {split: _listed(self.environment.tasks(split)) for split in splits}
        for split, tasks in by_split.items():
            self.expect(len(tasks) > 0, f"split {split!r} has no tasks")
            again = _listed(self.environment.tasks(split))
            self.expect(
                tasks == again, f"tasks({split!r}) returns different tasks, or another order, on the second call"
            )
            for task in tasks:
                self.note(records.task_problems(task, split))
        ids = [task.task_id for tasks in by_split.values() for task in tasks]
        self.expect(len(set(ids)) == len(ids), "task ids are not unique")
        for first, second in combinations(splits, 2):
            shared = shared_tasks(by_split[first], by_split[second])
            self.expect(not shared, f"splits {first!r} and {second!r} share {len(shared)} tasks by content")
        return [task for tasks in by_split.values() for task in tasks[:: max(1, len(tasks) // per_split)][:per_split]]

    def projected(self, response: str) -> str:
        """The action of a response."""
        shown = response if len(response) < 60 else response[:57] + "..."
        try:
            first, second = self.environment.project(response), self.environment.project(response)
        except BaseException as error:  # any exception would end a training run
            if is_interrupt(error):
                raise
            self.problems.append(f"project({shown!r}) raises {told(error)}")
            return ""
        self.expect(first == second, f"project({shown!r}) is not pure: it returns {first}, then {second}")
        problems = list(records.projection_problems(first, shown))
        self.note(problems)
        return "" if problems else first.action

    # Play ------------------------------------------------------------------------------------------------------

    @contextmanager
    def open_pool(self) -> Iterator[EnvironmentPool]:
        """A pool that is closed at the end, twice, and also where something raises, which is then what is told."""
        pool = self.environment.open_pool()
        try:
            yield pool
        except BaseException:
            first = self.calling, self.raised
            try:
                pool.close()
            except BaseException as error:
                if is_interrupt(error):
                    raise
            self.calling, self.raised = first
            raise
        for _ in range(2):
            pool.close()

    def check_play(self, tasks: list[Task], max_steps: int) -> None:
        """Play two members of every task in one pool, then replay the walks: again, in another pool, and alone."""
        slots = [(task, member) for task in tasks for member in (0, 1)]
        with self.open_pool() as pool:
            walks = self.play(pool, slots, max_steps)
            if self.problems:  # comparisons would only repeat them
                return
            ended = [slot for slot, walk in enumerate(walks) if _is_over(walk)]
            for slot in ended[:3]:
                self.expect_refused(pool, slot)
            self.expect_refused(pool, len(slots))
            self.expect(pool.step({}) == {}, "step({}) must return an empty dict")
            scripts = [[action for action, _ in steps] for _, steps in walks]
            of_slot = [task for task, _ in slots]
            self.compare(walks, self.replay(pool, of_slot, scripts), "in a pool that was reset")
            with self.open_pool() as other:
                self.expect(other != pool, "open_pool() returns the same pool twice")
                replayed = self.replay(other, of_slot[::-1], scripts[::-1])
                self.compare(walks[::-1], replayed, "in another pool and order")
                self.compare(walks[:1], self.replay(other, of_slot[:1], scripts[:1]), "without the other episodes")
        self.check_errors(slots, walks)

    def play(self, pool: EnvironmentPool, slots: list[tuple[Task, int]], max_steps: int) -> list[Walk]:
        """Take random walks."""
        walks: list[Walk] = [(start, []) for start in self.reset(pool, [task for task, _ in slots])]
        if self.problems:
            return walks
        views = {slot: start for slot, (start, _) in enumerate(walks) if isinstance(start, Observation)}
        past: dict[int, list[PastTurn]] = {slot: [] for slot in views}
        for slot, view in views.items():
            self.check_preface(slots[slot][0])
            self.check_text("opening", [self.environment.opening(slots[slot][0], view) for _ in range(2)])
            self.check_window_prompt(slots[slot][0], [], view, 0)
        for turn in range(max_steps):
            actions = {slot: self.choose(*slots[slot], turn, view) for slot, view in views.items()}
            for slot, outcome in self.step(pool, actions).items():
                walks[slot][1].append((actions[slot], outcome))
                past[slot].append(PastTurn(views[slot].text, actions[slot]))
                views[slot] = outcome.observation
                if outcome.done:
                    del views[slot]
            if self.problems or not views:
                break
            for slot, view in views.items():
                self.check_text("reply", [self.environment.reply(view) for _ in range(2)])
                self.check_window_prompt(slots[slot][0], past[slot], view, turn + 1)
        return walks

    def check_errors(self, slots: list[tuple[Task, int]], walks: list[Walk]) -> None:
        """An environment may report an error, and none of the tasks that it lists should need one."""
        failed: dict[str, list[tuple[Task, StepOutcome]]] = {"cannot start": [], "end by an error": []}
        for (task, _), (start, steps) in zip(slots, walks, strict=True):
            if isinstance(start, StepOutcome):
                failed["cannot start"].append((task, start))
            elif steps and steps[-1][1].error is not None:
                failed["end by an error"].append((task, steps[-1][1]))
        for what, found in failed.items():
            if found:
                task, outcome = found[0]
                first = f"the first is one of task {task.task_id!r}: {outcome.error}"
                self.problems.append(f"{len(found)} of {len(slots)} episodes {what}; {first}")

    def choose(self, task: Task, member: int, turn: int, view: Observation) -> str:
        """An offered action, one of the expert's, or the projection of an odd response."""
        rng = keyed_generator(self.seed, "check_env", task.task_id, member, turn)
        offers = list(view.actions or ()) or list(self.environment.expert(task) or ())
        if offers and rng.random() < 0.7:
            return offers[int(rng.integers(len(offers)))]
        return self.projected(ODD_RESPONSES[int(rng.integers(len(ODD_RESPONSES)))])

    def replay(self, pool: EnvironmentPool, tasks: list[Task], scripts: list[list[str]]) -> list[Walk]:
        """Play given actions in each slot until it is over."""
        walks: list[Walk] = [(start, []) for start in self.reset(pool, tasks)]
        for turn in range(max(map(len, scripts), default=0)):
            running = [slot for slot in range(len(tasks)) if turn < len(scripts[slot]) and not _is_over(walks[slot])]
            actions = {slot: scripts[slot][turn] for slot in running}
            for slot, outcome in self.step(pool, actions).items():
                walks[slot][1].append((actions[slot], outcome))
        return walks

    def compare(self, expected: list[Walk], found: list[Walk], where: str) -> None:
        for (start, steps), (other_start, other_steps) in zip(expected, found, strict=True):
            self.expect(start == other_start, f"the same task starts differently {where}")
            self.expect(steps == other_steps, f"the same actions have different outcomes {where}")

    def reset(self, pool: EnvironmentPool, tasks: list[Task]) -> list[Start]:
        starts = pool.reset(list(tasks))  # its own to change
        self.expect(len(starts) == len(tasks), f"reset() of {len(tasks)} tasks returns {len(starts)} slots")
        for start in starts:
            self.note(records.start_problems(start))
        return (starts + [Observation("", None, "")] * len(tasks))[: len(tasks)]

    def step(self, pool: EnvironmentPool, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        try:
            outcomes = pool.step(dict(actions))
        except BaseException as error:  # an action may be any text, and none may raise
            if is_interrupt(error):
                raise
            self.problems.append(f"step() raises {type(error).__name__} for an action that a model may give: {error}")
            return {}
        self.expect(
            set(outcomes) == set(actions), f"step() of slots {sorted(actions)} returns slots {sorted(outcomes)}"
        )
        for outcome in outcomes.values():
            self.note(records.outcome_problems(outcome))
        self.steps += len(outcomes)
        self.ends += sum(outcome.done for outcome in outcomes.values())
        return {slot: outcome for slot, outcome in outcomes.items() if slot in actions}

    def check_preface(self, task: Task) -> None:
        first, second = self.environment.preface(task), self.environment.preface(task)
        self.expect(isinstance(first, Preface), f"preface() must return a Preface, got {first!r}")
        self.expect(first == second, "preface() returns a different one on the second call")

    def check_text(self, method: str, texts: list[str]) -> None:
        self.expect(all(isinstance(text, str) for text in texts), f"{method}() must return a string")
        self.expect(texts[0] == texts[1], f"{method}() returns a different text on the second call")

    def check_window_prompt(self, task: Task, past: list[PastTurn], view: Observation, step: int) -> None:
        """Check it with all history and with none. Skipped if the texts that it is made of are wrong already."""
        if self.problems:
            return
        for shown in (past, []):
            texts = [self.environment.window_prompt(task, shown, view, step) for _ in range(2)]
            self.check_text("window_prompt", texts)

    def expect_refused(self, pool: EnvironmentPool, slot: int) -> None:
        try:
            pool.step({slot: "look"})
        except (ValueError, LookupError):
            return
        except BaseException as error:
            if is_interrupt(error):
                raise
            self.problems.append(
                f"stepping a slot that is not running must raise ValueError, got {type(error).__name__}"
            )
        else:
            self.problems.append("a slot that has ended, or was never started, can be stepped")

    # Experts and errors ----------------------------------------------------------------------------------------

    def check_experts(self, tasks: list[Task]) -> None:
        """An expert must succeed with its last action and within the turn limit, and the slot must then be over."""
        limit = self.environment.max_turns
        with self.open_pool() as pool:
            for task in tasks:
                actions = self.environment.expert(task)
                if actions is None:
                    continue
                needed = f"the expert of {task.task_id!r} needs {len(actions)} turns, but max_turns is {limit}"
                self.expect(0 < len(actions) <= limit, needed)
                _, steps = self.replay(pool, [task], [actions])[0]
                if len(steps) == len(actions) > 0 and steps[-1][1].success:
                    self.expect_refused(pool, 0)
                    self.experts += 1
                else:
                    self.problems.append(f"the expert of {task.task_id!r} does not succeed with its last action")

    def check_unplayable(self, good: Task, unplayable: Task) -> None:
        """An unplayable task must return an error without effect on its neighbors."""
        with self.open_pool() as pool, self.open_pool() as other:
            starts = self.reset(pool, [good, unplayable, good])
            self.expect(isinstance(starts[1], StepOutcome), "the unplayable task starts as if it could be played")
            self.expect(isinstance(starts[2], Observation), "an unplayable task prevents its neighbors from starting")
            alone = self.reset(other, [good])
            self.expect(starts[0] == starts[2] == alone[0], "an unplayable task changes how its neighbors start")
            if not self.problems:
                self.expect_refused(pool, 1)
                outcomes = self.step(pool, {0: "look", 2: "look"})
                self.expect(outcomes.get(0) == outcomes.get(2), "an unplayable task changes how its neighbors play")


def _listed(tasks: Sequence[Task]) -> list[Task]:
    """The tasks; of more than can be looked at, so many spread over all of them."""
    if isinstance(tasks, TaskList) and len(tasks) > _LOOKED_AT:
        return [tasks[place * len(tasks) // _LOOKED_AT] for place in range(_LOOKED_AT)]
    return list(tasks)


def _is_over(walk: Walk) -> bool:
    start, steps = walk
    return isinstance(start, StepOutcome) or (bool(steps) and steps[-1][1].done)
