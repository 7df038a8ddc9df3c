"""Arithmetic: written calculations of problems that neither training nor panels have."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from sdar.environments.arithmetic.demonstrator import demonstrate
from sdar.environments.arithmetic.environment import ArithmeticEnvironment, example_of, shares
from sdar.environments.arithmetic.problem import OPERATIONS, SIGNS
from sdar.environments.demonstration import Step
from sdar.environments.facts import facts_beside
from sdar.episode import Task
from sdar.warm_start.domain import SPLIT, Domain
from sdar.warm_start.settings import WarmStartSettings


class ArithmeticDomain(Domain):
    """See the module."""

    name: ClassVar[str] = "arithmetic"
    phrases: ClassVar[tuple[str, ...]] = facts_beside(__file__)["phrases"]
    vocabulary_size: ClassVar[int] = 512
    context_tokens: ClassVar[int] = 256
    max_turns: ClassVar[int] = 1
    split: ClassVar[str] = "valid"

    def environment(self, max_turns: int) -> ArithmeticEnvironment:  # noqa: ARG002
        """See :class:`Domain`."""
        return ArithmeticEnvironment()

    def task(self, seed: int, index: int) -> Task:
        """See :class:`Domain`."""
        parts = shares(SPLIT)
        part = parts[index % len(parts)]
        # Problems are few and come again; seeds begin at different ones.
        own = part[(index // len(parts) + 7919 * seed) % len(part)]
        example = example_of(own)
        return Task(f"{SPLIT}/{seed}-{index}", example.kind, example.prompt, SPLIT, own.text, own)

    def demonstrate(self, task: Task, rng: np.random.Generator, *, skilled: bool, max_turns: int) -> list[Step]:  # noqa: ARG002
        """See :class:`Domain`."""
        return [demonstrate(task.payload, rng, skilled=skilled)]

    def misleading(self, task: Task, rng: np.random.Generator) -> Task:
        """A problem of another operation."""
        others = [operation for operation in OPERATIONS if operation != task.task_type]
        other = others[int(rng.integers(len(others)))]
        return replace(task, task_type=other, description=f"3 {SIGNS[other]} 2")

    def training(self) -> WarmStartSettings:
        """Demonstrations are short."""
        return WarmStartSettings(steps=1500)

    def response(self, step: Step) -> str:
        """The command already has tags."""
        return f"<think>{step.thought}</think>{step.command}"


DOMAIN = ArithmeticDomain
