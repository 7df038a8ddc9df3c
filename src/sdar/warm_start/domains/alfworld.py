"""ALFWorld: demonstrations in generated households of the training scenes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from sdar.environments.alfworld.demonstrator import MEDIOCRE, SKILLED, Demonstrator
from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.alfworld.game import TASK_TYPES, Game
from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NativeEngine
from sdar.environments.alfworld.task_text import TEMPLATES, parse_task_text
from sdar.environments.demonstration import Step
from sdar.environments.facts import facts_beside
from sdar.episode import Task
from sdar.warm_start.domain import SPLIT, Domain


class AlfworldDomain(Domain):
    """See the module."""

    name: ClassVar[str] = "alfworld"
    phrases: ClassVar[tuple[str, ...]] = facts_beside(__file__)["phrases"]
    max_turns: ClassVar[int] = 14
    split: ClassVar[str] = "valid_unseen"

    def __init__(self) -> None:
        self._generator = HouseholdGenerator(GeneratorSettings())
        self._engine = NativeEngine()

    def environment(self, max_turns: int) -> AlfworldEnvironment:
        """See :class:`Domain`."""
        return AlfworldEnvironment(max_turns=max_turns)

    def task(self, seed: int, index: int) -> Task:
        """See :class:`Domain`."""
        game = self._generator.game(SPLIT, seed * 10_000_000 + index)
        return Task(game.game_id, game.task_type, game.task_text, game.split, game.content_hash, game)

    def demonstrate(self, task: Task, rng: np.random.Generator, *, skilled: bool, max_turns: int) -> list[Step]:
        """See :class:`Domain`."""
        game: Game = task.payload
        goal = parse_task_text(game.task_text)
        assert goal is not None
        state, reply = self._engine.load(game).start()
        steps, _ = Demonstrator(state, reply, goal, SKILLED if skilled else MEDIOCRE, rng).play(max_turns)
        return steps

    def misleading(self, task: Task, rng: np.random.Generator) -> Task:
        """A task of another type."""
        shift = int(rng.integers(1, len(TASK_TYPES)))
        other = TASK_TYPES[(TASK_TYPES.index(task.task_type) + shift) % len(TASK_TYPES)]
        description = TEMPLATES[other][0].format(obj="thing", target="somewhere")
        return replace(task, task_type=other, description=description)


DOMAIN = AlfworldDomain
