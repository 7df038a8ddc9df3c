"""The built-in catalogue: products and instructions in the original's schema, drawn from a seed.

One product of every maker, style and kind of the world: 480 in all. Titles tell maker, style and kind; the quality that
an instruction asks for stands in the second bullet point only, which the search engine does not index. Usually it is
the one its maker is known for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdar.environments.webshop.product import Product, read_product
from sdar.environments.webshop.world import CATEGORIES, DEPARTMENTS
from sdar.errors import UserError
from sdar.randomness import keyed_generator


@dataclass(frozen=True)
class CatalogueSettings:
    """How the built-in catalogue is drawn.

    ``seed``               another seed: other prices, ASINs, options and exceptions in the same world
    ``typical_fraction``   share in [0, 1] of products that have the quality their maker is known for
    ``styled_fraction``    share in [0, 1] of products whose instruction asks for the style, too
    ``values_per_option``  of each option, values that a product comes in, at least 2
    """

    seed: int = 0
    typical_fraction: float = 0.9
    styled_fraction: float = 0.5
    values_per_option: int = 3

    def __post_init__(self) -> None:
        for name in ("typical_fraction", "styled_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"environment.catalogue.{name}={getattr(self, name)}: allowed are numbers from 0 to 1")
        if not 2 <= self.values_per_option <= 3:
            raise UserError(f"environment.catalogue.values_per_option={self.values_per_option}: allowed are 2 and 3")


def generate_records(settings: CatalogueSettings, stream: str = "shop") -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Records as ``items_shuffle.json`` has them, each with its entry of ``items_ins_v2.json``.

    ``stream`` names a catalogue of its own for the same seed.
    """
    rng = keyed_generator(settings.seed, "catalogue", stream)
    count = sum(len(group.kinds) * len(group.makers) * len(group.styles) for group in CATEGORIES.values())
    # The same codes in every catalogue, for other products: few enough for each to be one token of the tiny model.
    numbers = rng.permutation(np.arange(100, 100 + count))
    made: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name, category in CATEGORIES.items():
        for kind in category.kinds:
            for maker in category.makers:
                # A maker's products of a kind come in the same colours and sizes.
                options = {
                    option: _values(values, settings.values_per_option, rng)
                    for option, values in category.options.items()
                }
                for style in category.styles:
                    asin = f"B{numbers[len(made)]}"
                    made.append(_record(asin, name, kind, maker, style, options, settings, rng))
    return [made[int(index)] for index in rng.permutation(len(made))]


def generate_products(settings: CatalogueSettings, stream: str = "shop") -> list[Product]:
    """The products of :func:`generate_records`."""
    products = [read_product(record, attributes) for record, attributes in generate_records(settings, stream)]
    return [product for product in products if product is not None]


def _record(
    asin: str,
    name: str,
    kind: str,
    maker: str,
    style: str,
    options: Mapping[str, Any],
    settings: CatalogueSettings,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], dict[str, Any]]:
    category = CATEGORIES[name]
    quality = category.makers[maker]
    if rng.random() >= settings.typical_fraction:
        quality = str(rng.choice([other for other in category.makers.values() if other != quality]))
    wanted = [quality, style] if rng.random() < settings.styled_fraction else [quality]
    description = f"A {style} {kind} by {maker.title()}."
    record = {
        "asin": asin,
        "name": f"{maker.title()} {style} {kind}",
        "full_description": description,
        "small_description": [f"{maker.title()} {kind}.", f"It is {quality}."],
        "pricing": _pricing(*category.kinds[kind], rng),
        "images": [],
        "customization_options": options,
        "category": name,
        "query": kind,
        "product_category": f"{DEPARTMENTS[name]} › {category.levels} › {kind.title()}",
    }
    words = " ".join([*wanted, kind])
    attributes = {
        "attributes": [quality, style],
        "instruction": f"Find me {words}" if kind.endswith("s") else f"Find me {_article(words)} {words}",
        "instruction_attributes": wanted,
    }
    return record, attributes


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _pricing(low: int, high: int, rng: np.random.Generator) -> str:
    price = int(rng.integers(low, high + 1))
    draw = rng.random()
    if draw < 0.03:
        return ""
    return f"${price}.00" if draw < 0.9 else f"${price}.00 - ${price + int(rng.integers(1, 10))}.00"


def _values(values: tuple[str, ...], count: int, rng: np.random.Generator) -> list[Mapping[str, str | None]]:
    chosen = sorted(int(index) for index in rng.choice(len(values), size=min(count, len(values)), replace=False))
    return [{"value": values[index], "image": None} for index in chosen]
