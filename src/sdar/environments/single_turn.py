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

from abc import abstractmethod
from collections.abc import Mapping

from sdar.environments.base import EnvironmentPool, Projection
from sdar.environments.examples import Example, ExampleEnvironment, share
from sdar.environments.slots import SlotPool
from sdar.episode import EndReason, Observation, StepOutcome, Task

__all__ = ["Example", "SingleTurnEnvironment"]


class SingleTurnEnvironment(ExampleEnvironment):
    """One prompt, one response, one reward. Subclasses have ``examples`` and ``reward``.

    The return of an episode is the reward times ``solved_return``; an example counts as solved at a reward of 1.
    """

    max_turns = 1
    solved_return = 10.0  # as in the built-in environments: penalties and floors of advantages are in this unit

    @abstractmethod
    def reward(self, response: str, example: Example) -> float:
        """How good a response is, in [0, 1]. Pure. What it raises ends this episode alone, as an error."""

    def well_formed(self, response: str) -> bool:
        """Whether a response keeps to the format; one that does not has ``algorithm.advantage.invalid_penalty``."""
        return True

    def open_pool(self) -> EnvironmentPool:
        """A pool that asks and rewards."""
        return SingleTurnPool(self)

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
        reward = share(self.environment.reward(response, example), self.environment, "reward")
        solved = reward == 1
        return StepOutcome(
            observation=Observation("", None, ""),
            reward=reward * self.environment.solved_return,
            done=True,
            success=solved,
            scores={"reward": reward},
            end=EndReason.SUCCESS if solved else EndReason.FAILURE,
        )
