"""Shopping goals, their order, prices, and splits.

In the original, each worker draws prices and price limits from Python's global generator and splits a list that it has
shuffled itself, so that goals held out in one worker are trained on in another (verl-agent issue 262). Here there is
one draw and one order, from private generators of the same kind, for any number of workers.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdar.environments.webshop.product import Product
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
    make = _human_goals if human else _synthetic_goals
    return [goal for product in products for goal in make(product, prices[product.asin], rng)]


def _limit(price: float, rng: random.Random) -> tuple[float, str]:
    """A price limit above the price, the larger of two draws, and its text in the instruction."""
    near = [limit for limit in _LIMITS if limit > price][:4]
    if len(near) < 2:
        return NO_LIMIT, ""
    upper = max(rng.sample(near, 2))
    return upper, f", and price lower than {upper:.2f} dollars"


def _synthetic_goals(product: Product, price: float, rng: random.Random) -> list[Goal]:
    """One goal for every combination of options."""
    if product.instruction is None or not product.instruction_attributes:
        return []
    upper, limit = _limit(price, rng)
    names = sorted(product.options)
    goals = []
    for values in itertools.product(*(product.options[name] for name in names)):
        options = tuple(zip(names, values, strict=True))
        wanted = ", and ".join(f"{name}: {value}" for name, value in options)
        text = product.instruction + (f" with {wanted}" if wanted else "") + limit
        goals.append(_goal(product, text, product.instruction_attributes, options, upper))
    return goals


def _human_goals(product: Product, price: float, rng: random.Random) -> list[Goal]:
    goals = []
    for order in product.orders:
        if not order.attributes:
            continue
        upper, limit = _limit(price, rng)
        text = order.instruction.strip(".") + limit
        goals.append(_goal(product, text, order.attributes, order.options, upper))
    return goals


def _goal(product: Product, text: str, attributes: tuple[str, ...], options: Options, upper: float) -> Goal:
    return Goal(
        asin=product.asin,
        instruction=text,
        attributes=attributes,
        options=options,
        price_upper=upper,
        query=product.query,
        name=product.title,
        category=product.category,
        product_category=product.product_category,
    )


def split_tasks(goals: Sequence[Goal]) -> dict[str, list[Task]]:
    """The tasks of each split that is not empty, in the original's order of the goals.

    A goal that occurs twice is a task of the first split that contains it: test, eval, train.
    """
    order = list(goals)
    random.Random(SHUFFLE_SEED).shuffle(order)
    seen: set[str] = set()
    tasks: dict[str, list[Task]] = {}
    for split, (start, end) in _ENDS.items():
        for position, goal in enumerate(order[start:end], start):
            content = goal.content_hash
            if content not in seen:
                seen.add(content)
                task = Task(f"{split}/{position}", goal.category, goal.instruction, split, content, goal)
                tasks.setdefault(split, []).append(task)
    return tasks
