"""The fictional world of the generated catalogue: products, makers, and the quality that each maker is known for.

Every category has five makers, and the products of a maker usually have one quality that is not in their titles. The
skills contain this knowledge. The same makers occur in other categories with other qualities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdar.environments.facts import facts_beside


@dataclass(frozen=True)
class Category:
    """One category of products.

    ``levels``  category path of the shop, between the department and the kind of product
    ``kinds``   kind of product -> lowest and highest price in dollars
    ``makers``  maker -> usual quality of its products
    ``styles``  styles, which are part of titles
    ``options`` name -> all values
    """

    levels: str
    kinds: Mapping[str, tuple[int, int]]
    makers: Mapping[str, str]
    styles: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]

    def makers_of(self, quality: str) -> list[str]:
        """The makers known for a quality."""
        return [maker for maker, known_for in self.makers.items() if known_for == quality]


_FACTS = facts_beside(__file__)

CATEGORIES: Mapping[str, Category] = {name: Category(**fields) for name, fields in _FACTS["categories"].items()}
DEPARTMENTS: Mapping[str, str] = _FACTS["departments"]


def category_of(kind: str) -> str:
    """The category that sells a kind of product."""
    return next(name for name, category in CATEGORIES.items() if kind in category.kinds)
