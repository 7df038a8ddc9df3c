"""Search-QA: demonstrations in closed worlds, with a new world every few hundred, so that no facts can be learned."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from sdar.environments.demonstration import Step
from sdar.environments.facts import facts_beside
from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.closed_world import as_question
from sdar.environments.search_qa.demonstrator import MEDIOCRE, SKILLED, Demonstrator
from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.world import TYPES, World, WorldSettings
from sdar.episode import Task
from sdar.warm_start.domain import SPLIT, Domain
from sdar.warm_start.settings import WarmStartSettings

_WORLD = WorldSettings(people=120, towns=40, books=60)
_QUESTIONS = 200
"""Demonstrations per world."""

_TOP_K = 3
_FACTS = facts_beside(__file__)
_EXAMPLES: dict[str, str] = _FACTS["examples"]
"""A question of each type, with the keywords of its skills."""


class SearchQADomain(Domain):
    """See the module."""

    name: ClassVar[str] = "search_qa"
    phrases: ClassVar[tuple[str, ...]] = _FACTS["phrases"]
    vocabulary_size: ClassVar[int] = 1536
    context_tokens: ClassVar[int] = 1024
    max_turns: ClassVar[int] = 4
    split: ClassVar[str] = "valid"

    def environment(self, max_turns: int) -> SearchQAEnvironment:
        """See :class:`Domain`."""
        return SearchQAEnvironment(max_turns=max_turns, top_k=_TOP_K)

    def task(self, seed: int, index: int) -> Task:
        """See :class:`Domain`."""
        number, question = divmod(index, _QUESTIONS)
        world, _ = world_of(seed * 1_000_000 + number)
        return replace(as_question(world.question(question), f"{seed}-{index}").task(SPLIT), payload=(number, question))

    def demonstrate(self, task: Task, rng: np.random.Generator, *, skilled: bool, max_turns: int) -> list[Step]:
        """See :class:`Domain`."""
        seed = int(task.task_id.split("/")[1].split("-")[0])
        number, index = task.payload
        world, retriever = world_of(seed * 1_000_000 + number)
        habits = SKILLED if skilled else MEDIOCRE
        return Demonstrator(world.question(index), retriever, _TOP_K, habits, rng).play(max_turns)

    def misleading(self, task: Task, rng: np.random.Generator) -> Task:
        """A question of another type."""
        shift = int(rng.integers(1, len(TYPES)))
        other = TYPES[(TYPES.index(task.task_type) + shift) % len(TYPES)]
        return replace(task, task_type=other, description=_EXAMPLES[other])

    def training(self) -> WarmStartSettings:
        """More steps than elsewhere, since demonstrations are short."""
        return WarmStartSettings(steps=1200)

    def response(self, step: Step) -> str:
        """The command already has tags: it is a search or an answer."""
        return f"<think>{step.thought}</think>{step.command}"


@lru_cache(maxsize=4)
def world_of(number: int) -> tuple[World, Bm25Retriever]:
    """World number ``number`` of the warm start, with its retriever."""
    world = World(_WORLD, SPLIT, number)
    return world, Bm25Retriever(world.passages)


DOMAIN = SearchQADomain
