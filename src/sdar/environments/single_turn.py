"""Environments of one turn: a prompt, a response, and a function that rewards it.

A data set with a reward function is an environment of two methods::

    class Capitals(SingleTurnEnvironment):
        name = "capitals"

        def examples(self, split):
            return [Example(prompt=f"What is the capital of {land}?", answer=town) for land, town in PAIRS[split]]

        def reward(self, response, example):
            return float(example.answer in response)
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sdar.environments.base import Environment, EnvironmentPool, Projection
from sdar.environments.slots import SlotPool
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError


@dataclass(frozen=True)
class Example:
    """What is asked once.

    ``prompt``  the user's message
    ``answer``  what the reward function compares a response with; the policy never sees it
    ``kind``    type of the task, by which panels are balanced, results are listed and skills are chosen; "": the
                environment's name
    """

    prompt: str
    answer: str = ""
    kind: str = ""


class SingleTurnEnvironment(Environment):
    """One prompt, one response, one reward. Subclasses have ``examples`` and ``reward``.

    The return of an episode is the reward times ``solved_return``; an example counts as solved at a reward of 1.
    """

    max_turns = 1

    @abstractmethod
    def examples(self, split: str) -> Sequence[Example]:
        """All examples of a split, in a stable order. Those of different splits differ in prompt or answer."""

    @abstractmethod
    def reward(self, response: str, example: Example) -> float:
        """How good a response is, in [0, 1]. Pure. What it raises ends this episode alone, as an error."""

    def well_formed(self, response: str) -> bool:
        """Whether a response keeps to the format; one that does not has ``algorithm.advantage.invalid_penalty``."""
        return True

    def splits(self) -> tuple[str, ...]:
        """``train`` and ``valid``."""
        return ("train", "valid")

    def tasks(self, split: str) -> Sequence[Task]:
        """The examples as tasks, made on first use."""
        if split not in self.splits():
            raise UserError(f"split must be one of {', '.join(self.splits())}, got {split!r}")
        if split not in self._made:
            self._made[split] = [
                self._task(split, place, example) for place, example in enumerate(self.examples(split))
            ]
        return self._made[split]

    @cached_property
    def _made(self) -> dict[str, list[Task]]:
        # Not in a constructor, which subclasses need not call.
        return {}

    def _task(self, split: str, place: int, example: Example) -> Task:
        content = hashlib.sha256(f"{example.prompt}\0{example.answer}".encode()).hexdigest()
        return Task(f"{split}/{place}", example.kind or self.name, example.prompt, split, content, example)

    def open_pool(self) -> EnvironmentPool:
        """A pool that asks and rewards."""
        return SingleTurnPool(self)

    def opening(self, task: Task, observation: Observation) -> str:
        """The prompt."""
        return observation.text

    def reply(self, observation: Observation) -> str:
        """There is none: an episode ends with its response."""
        return observation.text

    def project(self, response: str) -> Projection:
        """The whole response."""
        return Projection(response, self.well_formed(response))


class SingleTurnPool(SlotPool[Example]):
    """Asks each example once."""

    def __init__(self, environment: SingleTurnEnvironment) -> None:
        super().__init__()
        self.environment = environment

    def start(self, task: Task) -> tuple[Example, Observation]:
        """Ask."""
        return task.payload, Observation(task.payload.prompt, None, task.task_id)

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Reward the responses."""
        return {slot: self._rewarded(self.states[slot], response) for slot, response in actions.items()}

    def _rewarded(self, example: Example, response: str) -> StepOutcome:
        reward = float(self.environment.reward(response, example))
        if not (math.isfinite(reward) and 0 <= reward <= 1):
            raise ValueError(f"{type(self.environment).__name__}.reward must be in [0, 1], got {reward}")
        solved = reward == 1
        return StepOutcome(
            observation=Observation("", None, ""),
            reward=reward * self.environment.solved_return,
            done=True,
            success=solved,
            scores={"reward": reward},
            end=EndReason.SUCCESS if solved else EndReason.FAILURE,
        )
