"""A shopper with the agent's view of the shop, for the demonstrations of the warm start.

The skilled shopper knows the maker of each quality, respects the price limit and chooses every option. The mediocre one
tries any maker and forgets things at fixed rates. Both write a short thought and an action, as an agent does. Their
difference is the gap between the plain and the skill-conditioned view of the tiny model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdar.environments.demonstration import Step
from sdar.environments.webshop.goals import NO_LIMIT
from sdar.environments.webshop.product import Product
from sdar.environments.webshop.shop import PAGE_SIZE, Session
from sdar.environments.webshop.world import CATEGORIES


@dataclass(frozen=True)
class Habits:
    """How often a demonstrator makes each mistake; every field is a probability in [0, 1].

    ``right_maker``   try the maker that is known for the quality, rather than a random one of the category
    ``ignore_price``  ignore the price limit
    ``ignore_style``  ignore the style
    ``skip_option``   forget an option; drawn for each of them
    ``slip``          click something random; slips are not imitated, the steps after them are
    """

    right_maker: float
    ignore_price: float
    ignore_style: float
    skip_option: float
    slip: float


SKILLED = Habits(right_maker=1.0, ignore_price=0.0, ignore_style=0.0, skip_option=0.0, slip=0.06)
MEDIOCRE = Habits(right_maker=0.05, ignore_price=0.2, ignore_style=0.2, skip_option=0.1, slip=0.03)


class Demonstrator:
    """Plays one session."""

    def __init__(self, session: Session, habits: Habits, rng: np.random.Generator) -> None:
        self._session = session
        self._habits = habits
        self._rng = rng
        goal = session.goal
        self._category = CATEGORIES[goal.category]
        self._kind, self._quality = goal.query, goal.attributes[0]
        self._style = goal.attributes[1] if len(goal.attributes) > 1 else None
        self._wanted = [option for option in goal.options if isinstance(option, tuple)]
        self._skipped = {name for name, _ in self._wanted if rng.random() < habits.skip_option}
        self._ignores_price = rng.random() < habits.ignore_price
        self._ignores_style = rng.random() < habits.ignore_style
        self._maker = self._choose_maker()
        self._chosen: str | None = None
        limit = [] if goal.price_upper == NO_LIMIT else [f"under {goal.price_upper:.0f}"]
        words = " ".join(word for word in (self._quality, self._style, self._kind) if word)
        # Every thought restates the goal, so that the goal is never far back in the conversation.
        self._aim = ", ".join([words, *(value for _, value in self._wanted), *limit])

    def play(self, max_turns: int) -> list[Step]:
        """Steps until a purchase or the turn limit."""
        steps: list[Step] = []
        while len(steps) < max_turns and not self._session.done:
            slips = self._rng.random() < self._habits.slip and self._session.page != "index"
            thought, action = self._slip() if slips else self._decide()
            steps.append(Step(self._session.observation, f"{self._aim}: {thought}", action, not slips))
            self._session.step(action.lower())
        return steps

    def _choose_maker(self) -> str:
        if self._rng.random() < self._habits.right_maker:
            return self._category.makers_of(self._quality)[0]
        return str(self._rng.choice(sorted(self._category.makers)))

    def _slip(self) -> tuple[str, str]:
        """A random action that does not end the episode."""
        names = [name for name in self._session.clickables if name not in ("buy now", "back to search", "next >")]
        return "look", f"click[{self._shown(str(self._rng.choice(names)))}]"

    def _shown(self, name: str) -> str:
        """A name as shown on the page, so that it can be copied."""
        return name.upper() if name.upper() in self._session.shop.products else name

    def _decide(self) -> tuple[str, str]:
        page = self._session.page
        if page == "index":
            return self._search()
        if page == "search_results":
            return self._pick()
        if page == "item_sub_page":
            return "go back", "click[< prev]"
        if self._chosen is None or self._session.asin != self._chosen:
            return "not this one", "click[< prev]"
        for name, value in self._wanted:
            missing = self._session.options.get(name) != value and value in self._session.clickables
            if missing and name not in self._skipped:
                return f"choose {value}", f"click[{value}]"
        return "buy it", "click[buy now]"

    def _search(self) -> tuple[str, str]:
        words = [self._maker] + ([self._style] if self._style and not self._ignores_style else []) + [self._kind]
        return f"try {self._maker}", f"search[{' '.join(words)}]"

    def _pick(self) -> tuple[str, str]:
        """The first fitting product of the page, or, if none fits, the first of its kind."""
        shown = [self._session.shop.products[asin] for asin in self._listed()]
        fitting = [product for product in shown if self._fits(product)]
        rest = [product for product in shown if self._is_of(product)] or shown
        if not rest:
            return self._search()
        chosen = (fitting or rest)[0]
        self._chosen = chosen.asin
        return f"take {chosen.title} {chosen.asin}", f"click[{chosen.asin}]"

    def _listed(self) -> list[str]:
        found = (name.upper() for name in self._session.clickables)
        return [asin for asin in found if asin in self._session.shop.products][:PAGE_SIZE]

    def _is_of(self, product: Product) -> bool:
        maker = product.title.split()[0].lower()
        return product.query == self._kind and maker == self._maker

    def _fits(self, product: Product) -> bool:
        if not self._is_of(product):
            return False
        if self._style and not self._ignores_style and self._style not in product.title.split():
            return False
        # For a range, the upper end counts, since the actual price is not shown.
        return self._ignores_price or product.pricing[-1] <= self._session.goal.price_upper
