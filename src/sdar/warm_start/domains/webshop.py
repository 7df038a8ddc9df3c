"""WebShop: demonstrations in separate catalogues of the same world as the built-in one."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from sdar.environments.base import Environment
from sdar.environments.demonstration import Step
from sdar.environments.facts import facts_beside
from sdar.environments.webshop.catalogue import CatalogueSettings, generate_products
from sdar.environments.webshop.demonstrator import MEDIOCRE, SKILLED, Demonstrator
from sdar.environments.webshop.environment import WebshopEnvironment, open_shop
from sdar.environments.webshop.goals import Goal, draw_prices, make_goals
from sdar.environments.webshop.nouns import noun_source
from sdar.environments.webshop.shop import Session, Shop
from sdar.environments.webshop.world import CATEGORIES
from sdar.episode import Observation, Task
from sdar.warm_start.domain import SPLIT, Domain
from sdar.warm_start.settings import WarmStartSettings

TASKS_PER_CATALOGUE = 1500


class WebshopDomain(Domain):
    """See the module."""

    name: ClassVar[str] = "webshop"
    phrases: ClassVar[tuple[str, ...]] = facts_beside(__file__)["phrases"]
    vocabulary_size: ClassVar[int] = 1700
    max_turns: ClassVar[int] = 8
    split: ClassVar[str] = "test"

    def __init__(self) -> None:
        self.catalogue = lru_cache(maxsize=2)(draw_catalogue)

    def environment(self, max_turns: int) -> WebshopEnvironment:
        """See :class:`Domain`."""
        return WebshopEnvironment(max_turns=max_turns)

    def task(self, seed: int, index: int) -> Task:
        """See :class:`Domain`."""
        number, place = divmod(index, TASKS_PER_CATALOGUE)
        _, goals = self.catalogue(seed, number)
        goal = goals[place]
        name = f"{SPLIT}/{seed}-{index}"
        return Task(name, goal.category, goal.instruction, SPLIT, goal.content_hash, (number, seed, goal))

    def demonstrate(self, task: Task, rng: np.random.Generator, *, skilled: bool, max_turns: int) -> list[Step]:
        """See :class:`Domain`."""
        number, seed, goal = task.payload
        session = Session(self.catalogue(seed, number)[0], goal)
        return Demonstrator(session, SKILLED if skilled else MEDIOCRE, rng).play(max_turns)

    def misleading(self, task: Task, rng: np.random.Generator) -> Task:
        """A task of another category."""
        others = [name for name in CATEGORIES if name != task.task_type]
        other = others[int(rng.integers(len(others)))]
        return replace(task, task_type=other, description=f"Find me a {next(iter(CATEGORIES[other].kinds))}")

    def shown(self, environment: Environment, task: Task, number: int, step: Step) -> str:
        """The page as shown in prompts."""
        observation = Observation(step.observation, None, "")
        return environment.reply(observation) if number else environment.opening(task, observation)

    def training(self) -> WarmStartSettings:
        """See :class:`Domain`."""
        return WarmStartSettings(steps=540)


def draw_catalogue(seed: int, number: int) -> tuple[Shop, list[Goal]]:
    """A shop and its shuffled goals. The name of the stream separates it from every built-in catalogue."""
    products = generate_products(CatalogueSettings(), stream=f"{SPLIT}/{seed}/{number}")
    rng = random.Random(f"{SPLIT}/{seed}/{number}")
    prices = draw_prices(products, rng)
    goals = make_goals(products, prices, rng, human=False)
    rng.shuffle(goals)
    return open_shop(products, prices, noun_source("words", None)), goals


DOMAIN = WebshopDomain
