"""Environments whose tasks are examples: a prompt, and what its episode needs to know beside it."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sdar.environments.base import Environment
from sdar.episode import Task
from sdar.errors import UserError


@dataclass(frozen=True)
class Example:
    """What an episode begins with.

    ``prompt``  the user's first message
    ``answer``  what the environment compares with, or starts from; the policy never sees it
    ``kind``    type of the task, by which panels are balanced, results are listed and skills are chosen; "": the
                environment's name
    """

    prompt: str
    answer: str = ""
    kind: str = ""


class ExampleEnvironment(Environment):
    """Splits ``train`` and ``valid`` of examples. Subclasses have ``examples``."""

    @abstractmethod
    def examples(self, split: str) -> Sequence[Example]:
        """All examples of a split, in a stable order. Those of different splits differ in prompt or answer."""

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


def share(reward: float, environment: Environment, method: str) -> float:
    """A reward as a share of ``solved_return``. ValueError, naming the method that gave it: it is not in [0, 1]."""
    found = float(reward)
    if not 0 <= found <= 1:
        raise ValueError(f"the reward of {type(environment).__name__}.{method} must be in [0, 1], got {found}")
    return found
