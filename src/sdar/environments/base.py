"""The environment protocol. No torch and no policy in here.

An environment poses tasks and owns the text of its prompts and the projection of a response to an action. Its pool
plays many episodes at once, so that expensive calls (retrieval, worker processes) can be batched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdar.episode import Observation, StepOutcome, Task


@dataclass(frozen=True)
class PastTurn:
    """What was seen and what was done about it: one line of a window prompt's history.

    ``action`` is the projected action, also where the response broke the format; the reasoning is not kept.
    """

    observation: str
    action: str


@dataclass(frozen=True)
class Projection:
    """A response projected to an action. ``valid`` is False when the response broke the format."""

    action: str
    valid: bool


class EnvironmentPool(ABC):
    """Many episodes side by side, addressed by slot number (0-based position in ``reset``'s list)."""

    batched: ClassVar[bool] = False
    """Whether one ``step`` with many slots is cheaper than many steps of one slot (batched retrieval, workers).

    False: slots are stepped one at a time, so an exception ends only the slot that raised it. True: slots are stepped
    together; such a pool turns the error of a slot into a done outcome itself, and an exception ends every slot.
    """

    @abstractmethod
    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Start one episode per task; a slot that cannot start answers with a done ``StepOutcome`` and its error."""

    @abstractmethod
    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Apply one action in each named slot. A slot that has ended must not be stepped again (ValueError)."""

    def close(self) -> None:  # noqa: B027 - most pools hold nothing to release
        """Release workers and files. Idempotent."""


class Environment(ABC):
    """A source of tasks, the text around them, and pools that play them."""

    name: ClassVar[str]
    solved_return: float = 1.0
    """What an episode that solves its task returns, in units of reward: bandits scale returns by it."""
    max_turns: int

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the task splits; the first is the training split."""

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Task]:
        """All tasks of a split, in a stable order that does not depend on the file system."""

    @abstractmethod
    def open_pool(self) -> EnvironmentPool:
        """A new, independent pool."""

    @abstractmethod
    def opening(self, task: Task, observation: Observation) -> str:
        """Text of the first user message of an episode."""

    @abstractmethod
    def reply(self, observation: Observation) -> str:
        """Text of the user message that answers an action, in a growing conversation."""

    def window_prompt(self, task: Task, past: Sequence[PastTurn], observation: Observation, step: int) -> str:
        """Text of the only user message of a turn when each turn gets a fresh prompt (``rollout.context=window``).

        ``past`` holds the last turns, oldest first: fewer than were asked for early in an episode or where they do
        not fit, none in a prompt without history. ``step`` is the number of actions taken so far.

        This one puts together what a growing conversation would say. Override it where later turns need more, such
        as a format that only ``opening`` explains.
        """
        if step == 0:
            return self.opening(task, observation)
        parts = [task.description]
        if past:
            parts.append(f"Steps taken: {step}. The last {len(past)}:")
            parts += [f"{turn.observation}\n> {turn.action}" for turn in past]
        return "\n\n".join([*parts, self.reply(observation)])

    @abstractmethod
    def project(self, response: str) -> Projection:
        """Project a response (without its end token) to an action. Pure."""

    def expert(self, task: Task) -> list[str] | None:
        """Actions that solve the task, or None where the environment knows no expert."""
        return None

    def baselines(self) -> Mapping[str, Callable[[Task], list[str]]]:
        """Players without a model to show in the final table, by name; each gives the actions for a task."""
        return {}
