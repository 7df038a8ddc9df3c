"""Played episodes as part of the privileged text: of the same type of task, or of the same group."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

from sdar.config.fields import AtLeastOne, checked
from sdar.environments.base import Environment, training_tasks
from sdar.environments.task_list import place_of, tasks_by_type
from sdar.episode import Episode, Task, TaskOutcome
from sdar.errors import UserError
from sdar.evaluation.agents import play_expert
from sdar.randomness import keyed_generator
from sdar.teacher.parts import ContextPart, Item

HEADER = "[Privileged Demonstration]"
Origin = Literal["expert", "own", "own_or_expert"]
NAME = "demonstration"
_TRIES = 8
"""Number of tasks whose expert is tried before a task gets no demonstration."""


def transcript(episode: Episode, *, observations: bool) -> str:
    """The task and its actions, turn by turn, with the observation before each action if ``observations``."""
    turns = (
        f"{turn.observation.text}\n> {turn.action}" if observations else f"> {turn.action}" for turn in episode.turns
    )
    return "\n".join([f"The task was: {episode.task.description}", *turns])


class DemonstrationPart(ContextPart):
    """A solved episode of another training task of the same type, the same for all members of a group.

    It is drawn by (seed, iteration, task). Evaluations read an expert's, drawn by the task alone, or nothing if the
    environment has no expert.

    Args:
        origin: ``expert``, the environment's own solution; ``own``, episodes that this run has solved in earlier
            iterations; ``own_or_expert``, the run's own, and the expert's as long as there is none.
        keep: number of the run's own solved episodes kept per task type, the newest.
        observations: whether observations are shown with the actions.
        header: first line of the text.
    """

    @checked
    def __init__(
        self, origin: Origin = "own_or_expert", keep: AtLeastOne = 8, observations: bool = True, header: str = HEADER
    ) -> None:
        self.origin = origin
        self.keep = keep
        self.observations = observations
        self.header = header
        self._own: dict[str, list[list[str]]] = {}
        """task type -> [task, transcript] of solved episodes, the newest last"""
        self._iteration: dict[str, str] = {}
        """task -> transcript, in this iteration"""
        self._types: Mapping[str, Sequence[Task]] = {}
        self._expert_of = lru_cache(maxsize=4096)(self._play)
        self._evaluation = lru_cache(maxsize=4096)(self._expert)

    def connect(self, environment: Environment, count_tokens: Callable[[str], int]) -> None:  # noqa: ARG002
        """Store the training tasks by type; UserError if an expert is required and there is none."""
        self._environment = environment
        self._types = tasks_by_type(training_tasks(environment, needed=False))
        # An expert may lack a solution for single tasks, for example within environment.max_turns.
        self._has_expert = any(environment.expert(task) is not None for tasks in self._types.values() for task in tasks)
        if self.origin == "expert" and not self._has_expert:
            raise UserError(
                "teacher.parts.demonstration.origin=expert needs an expert, but the environment "
                f"{environment.name} has no expert solution for any training task; set it to own, or increase "
                "environment.max_turns if there is an expert"
            )

    def begin(self, tasks: Sequence[Task], *, iteration: int, seed: int) -> None:
        """Draw the demonstration of every task."""
        self._iteration = {}
        for task in tasks:
            own = [] if self.origin == "expert" else self._own.get(task.task_type, [])
            known = [text for other, text in own if other != task.task_id]
            if known:
                generator = keyed_generator(seed, "demonstration", iteration, task.task_id)
                text = known[int(generator.integers(len(known)))]
            else:
                text = "" if self.origin == "own" else self._expert(task.task_type, task.task_id, seed, iteration)
            self._iteration[task.task_id] = text

    def items(self, task: Task, member: int) -> list[Item]:  # noqa: ARG002 - all members read the same
        """The iteration's demonstration for the task; that of evaluations if the task is not in the iteration."""
        if task.task_id not in self._iteration:
            return self.evaluation_items(task)
        return _demonstration(self._iteration[task.task_id])

    def evaluation_items(self, task: Task) -> list[Item]:
        """An expert's demonstration, drawn by the task alone."""
        return _demonstration(self._evaluation(task.task_type, task.task_id, 0, 0))

    def possible(self, task: Task) -> list[list[Item]]:  # noqa: ARG002 - what the run will solve is unknown
        """Nothing is known before."""
        return []

    def _expert(self, task_type: str, task_id: str, seed: int, iteration: int) -> str:
        """An expert's solution of another training task of the type; "" if none is found."""
        tasks = self._types.get(task_type, [])
        own = place_of(task_id, tasks)
        others = len(tasks) - (own is not None)
        if not self._has_expert or not others:
            return ""
        generator = keyed_generator(seed, "expert", iteration, task_id)
        drawn = (int(generator.integers(others)) for _ in range(_TRIES))
        tried = (self._expert_of(tasks[place + (own is not None and place >= own)]) for place in drawn)
        return next((text for text in tried if text), "")

    def _play(self, task: Task) -> str:
        episodes = play_expert(self._environment, [task])
        if not episodes or not episodes[0].success:
            return ""
        return transcript(episodes[0], observations=self.observations)

    def gather(self, episodes: Sequence[Episode]) -> list[Any]:
        """The transcript of one solved episode per task, of the first member: [task, type, transcript]."""
        if self.origin == "expert":
            return []
        solved = {e.task.task_id: e for e in reversed(episodes) if e.success and not e.end.is_error}
        return [[name, e.task.task_type, transcript(e, observations=self.observations)] for name, e in solved.items()]

    def observe(self, outcomes: Sequence[TaskOutcome], gathered: Sequence[Any]) -> None:
        """Keep the newest, in task order."""
        by_task = {name: (task_type, text) for name, task_type, text in gathered}
        for name in (outcome.task.task_id for outcome in outcomes):
            if name in by_task:
                task_type, text = by_task[name]
                kept = [entry for entry in self._own.get(task_type, []) if entry[0] != name]
                self._own[task_type] = [*kept, [name, text]][-self.keep :]
        self._iteration = {}

    def record(self) -> dict[str, Any]:
        """Number of the run's own episodes per task type."""
        return {"own_demonstrations": {task_type: len(kept) for task_type, kept in self._own.items()}}

    def state(self) -> dict[str, Any]:
        """The run's own episodes."""
        return {"own_demonstrations": copy.deepcopy(self._own)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        if "own_demonstrations" not in state:
            raise UserError("ckpt_path names a checkpoint of a run with another teacher; it must be the same")
        self._own = copy.deepcopy(state["own_demonstrations"])
        self._iteration = {}


class SiblingPart(ContextPart):
    """The best other episode of the group: the highest return, then the fewest turns, then the lowest member.

    It is never the scored episode itself, and never one that ended by an error.

    Args:
        only_solved: whether only a solved episode is shown; the text is empty if no other member solved the task.
        observations: whether observations are shown with the actions.
        header: first line of the text.
    """

    known_before: ClassVar[bool] = False

    def __init__(self, only_solved: bool = True, observations: bool = True, header: str = HEADER) -> None:
        self.only_solved = only_solved
        self.observations = observations
        self.header = header

    def items(self, task: Task, member: int) -> list[Item]:  # noqa: ARG002
        """None: the group has not been played."""
        return []

    def items_after(self, episode: Episode, group: Sequence[Episode]) -> list[Item]:
        """See the class."""
        others = [other for other in group if other.member != episode.member and other.turns and not other.end.is_error]
        shown = [other for other in others if other.success or not self.only_solved]
        best = min(shown, key=lambda other: (-other.episode_return, len(other.turns), other.member), default=None)
        return [] if best is None else [Item("sibling", transcript(best, observations=self.observations))]

    def possible(self, task: Task) -> list[list[Item]]:  # noqa: ARG002
        """Nothing is known before."""
        return []


def _demonstration(text: str) -> list[Item]:
    return [Item(NAME, text)] if text else []
