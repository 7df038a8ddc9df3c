"""Shopping goals, their order, prices, and splits.

In the original, each worker draws prices and price limits from Python's global generator and splits a list that it has
shuffled itself, so that goals held out in one worker are trained on in another (verl-agent issue 262). Here there is
one draw and one order, from private generators of the same kind, for any number of workers.
"""

from __future__ import annotations

import hashlib
import math
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sdar.environments.webshop.product import Order, Product
from sdar.episode import Task

SHUFFLE_SEED = 233
"""Seed of the order of the goals (princeton-nlp/WebShop, web_agent_site/envs/web_agent_text_env.py)."""

SPLITS = ("train", "eval", "test")
_ENDS = {"test": (0, 500), "eval": (500, 1500), "train": (1500, None)}
"""Positions in the shuffled list (princeton-nlp/WebShop, baseline_models/env.py)."""

NO_LIMIT = 1_000_000.0
_LIMITS = [10.0 * step for step in range(1, 100)]


Options = tuple[tuple[str, str], ...] | tuple[str, ...]


@dataclass(frozen=True)
class Goal:
    """A product to buy, with its requirements.

    ``options`` has (name, value) pairs in a synthetic goal and plain values in a human one, since the original stores
    and compares them differently.
    """

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: Options
    price_upper: float
    query: str
    name: str
    category: str
    product_category: str

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of all fields."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def draw_prices(products: Iterable[Product], rng: random.Random) -> dict[str, float]:
    """The price of every product: fixed, or drawn once from its range."""
    return {
        product.asin: product.pricing[0] if len(product.pricing) == 1 else rng.uniform(*product.pricing)
        for product in products
    }


def make_goals(
    products: Sequence[Product], prices: Mapping[str, float], rng: random.Random, *, human: bool
) -> list[Goal]:
    """All synthetic or all human goals, in the order of the products."""
    return [goal for product in products for goal in _goals(product, prices[product.asin], rng, human=human)]


def draw_limit(price: float, rng: random.Random) -> float:
    """A price limit above the price, the larger of two draws; ``NO_LIMIT`` where there are fewer than two."""
    near = [limit for limit in _LIMITS if limit > price][:4]
    return NO_LIMIT if len(near) < 2 else max(rng.sample(near, 2))


def draw_limits(product: Product, price: float, rng: random.Random, *, human: bool) -> list[float]:
    """The price limit of each goal of a product, in the order of the goals."""
    if human:
        return [draw_limit(price, rng) for _ in wanted_orders(product)]
    if product.instruction is None or not product.instruction_attributes:
        return []
    return [draw_limit(price, rng)] * math.prod(map(len, product.options.values()))


def wanted_orders(product: Product) -> list[Order]:
    """The human instructions that goals are made of."""
    return [order for order in product.orders if order.attributes]


def make_goal(product: Product, number: int, limit: float, *, human: bool) -> Goal:
    """A goal of a product: the ``number``-th combination of options, or of human instructions."""
    if human:
        order = wanted_orders(product)[number]
        return _goal(product, order.instruction.strip("."), order.attributes, order.options, limit)
    options: list[tuple[str, str]] = []
    for name in sorted(product.options, reverse=True):  # the last one varies fastest
        number, place = divmod(number, len(product.options[name]))
        options.insert(0, (name, product.options[name][place]))
    wanted = ", and ".join(f"{name}: {value}" for name, value in options)
    text = f"{product.instruction}" + (f" with {wanted}" if wanted else "")
    return _goal(product, text, product.instruction_attributes, tuple(options), limit)


def _goals(product: Product, price: float, rng: random.Random, *, human: bool) -> Iterator[Goal]:
    for number, limit in enumerate(draw_limits(product, price, rng, human=human)):
        yield make_goal(product, number, limit, human=human)


def _goal(product: Product, text: str, attributes: tuple[str, ...], options: Options, limit: float) -> Goal:
    return Goal(
        asin=product.asin,
        instruction=text if limit == NO_LIMIT else f"{text}, and price lower than {limit:.2f} dollars",
        attributes=attributes,
        options=options,
        price_upper=limit,
        query=product.query,
        name=product.title,
        category=product.category,
        product_category=product.product_category,
    )


def shuffled(count: int) -> array[int]:
    """The original's order of ``count`` goals."""
    order = array("q", range(count))
    random.Random(SHUFFLE_SEED).shuffle(order)
    return order


def split_of(count: int) -> dict[str, range]:
    """The positions of each split in the order of ``count`` goals; splits without any are left out."""
    found = {split: range(start, count if end is None else min(end, count)) for split, (start, end) in _ENDS.items()}
    return {split: positions for split, positions in found.items() if positions}


def make_task(goal: Goal, split: str, position: int) -> Task:
    """The task of a goal."""
    return Task(f"{split}/{position}", goal.category, goal.instruction, split, goal.content_hash, goal)


def split_tasks(goals: Sequence[Goal]) -> dict[str, list[Task]]:
    """The tasks of each split that is not empty, in the original's order of the goals.

    A goal that occurs twice is a task of the first split that contains it: test, eval, train.
    """
    order = shuffled(len(goals))
    seen: set[str] = set()
    tasks: dict[str, list[Task]] = {}
    for split, positions in split_of(len(goals)).items():
        for position in positions:
            task = make_task(goals[order[position]], split, position)
            if task.content_hash not in seen:
                seen.add(task.content_hash)
                tasks.setdefault(split, []).append(task)
    return tasks
