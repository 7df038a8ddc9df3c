"""The score of a purchase, with the quirks of the original (princeton-nlp/WebShop, web_agent_site/engine/goal.py).

    score = r_type * (attributes found + options found + [price <= limit]) / (attributes + options + 1)

The quirks affect which purchases score 1, so they are kept:

- a synthetic goal's options are (name, value) pairs; a pair is compared as the text of a Python tuple, and has a color
  only if its value is exactly one;
- a text has the first color of :data:`COLOURS` that occurs in it, even inside another word ("red" in "reddish", but
  also in "layered");
- options of other products count as those of this one, since only values are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.utils import default_process

from sdar.environments.facts import facts_beside
from sdar.environments.webshop.goals import Goal
from sdar.environments.webshop.product import Product

COLOURS: tuple[str, ...] = facts_beside(__file__)["colours"]
"""Names that count as colors; the first match wins."""

_MATCH = 85
_LATIN_1 = dict.fromkeys(range(128, 256))

Nouns = Callable[[Product], Sequence[str]]
"""The nouns of a product's title, in lower case, one entry per occurrence."""


def score(
    product: Product, goal: Goal, price: float, options: Mapping[str, str], nouns: Nouns, wanted: Product
) -> float:
    """The score in [0, 1] of buying ``product`` with ``options`` at ``price``; ``wanted`` is the goal's product."""
    found = _attributes_found(product, goal) + _options_found(goal, options) + (price <= goal.price_upper)
    share = found / (len(goal.attributes) + len(goal.options) + 1)
    return share * type_score(product, goal, nouns(product), nouns(wanted))


def type_score(product: Product, goal: Goal, bought: Sequence[str], wanted: Sequence[str]) -> float:
    """Similarity of the types of product and goal: 1, 0.5, 0.1 or 0. ``bought`` and ``wanted`` are nouns of titles."""
    overlap = len(set(bought) & set(wanted)) / len(wanted) if wanted else 0.2
    if overlap == 0.0:
        return 0.0
    if overlap < 0.1:
        return 0.1
    shared = _levels(product.product_category) & _levels(goal.product_category)
    return 1.0 if product.query == goal.query or len(shared) >= 2 or overlap > 0.2 else 0.5


def _levels(category: str) -> set[str]:
    return {level.strip() for level in category.split("›")}


def _attributes_found(product: Product, goal: Goal) -> int:
    texts = (product.title.lower(), " ".join(product.bullets).lower(), product.description.lower())
    return sum(
        any(_similar(own, wanted) for own in product.attributes) or any(wanted in text for text in texts)
        for wanted in goal.attributes
    )


def _options_found(goal: Goal, options: Mapping[str, str]) -> int:
    chosen = [first_colour(value) for value in options.values()]
    return sum(any(_similar(own, first_colour(wanted)) for own in chosen) for wanted in goal.options)


def first_colour(value: str | tuple[str, str]) -> str | tuple[str, str]:
    """The first color that occurs in a text, or is an element of a pair; the value itself if there is none."""
    return next((colour for colour in COLOURS if colour in value), value)


def _similar(one: object, other: object) -> bool:
    """Whether two texts have nearly the same words, by thefuzz's rule: Latin-1 letters dropped, score rounded."""
    return round(token_set_ratio(_plain(one), _plain(other))) > _MATCH


def _plain(value: object) -> str:
    return default_process(str(value).translate(_LATIN_1))
