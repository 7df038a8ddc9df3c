"""The built-in catalogue: products and instructions in the original's schema, generated from a seed.

It has one product of every maker, style and kind of the world, 480 in total. Titles contain maker, style and kind. The
quality that an instruction asks for is only in the second bullet point, which the search engine does not index. It is
usually the quality that the maker is known for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from sdar.config.fields import Fraction, settings
from sdar.environments.webshop.product import Product, read_product
from sdar.environments.webshop.world import CATEGORIES, DEPARTMENTS
from sdar.randomness import keyed_generator


@settings(frozen=True)
class CatalogueSettings:
    """How the built-in catalogue is generated.

    ``seed``               seed of prices, ASINs, options and exceptions; the world stays the same
    ``typical_fraction``   share of products that have the quality their maker is known for
    ``styled_fraction``    share of products whose instruction also asks for the style
    ``values_per_option``  values of each option of a product
    """

    seed: int = 0
    typical_fraction: Fraction = 0.9
    styled_fraction: Fraction = 0.5
    values_per_option: Annotated[int, Ge(2), Le(3)] = 3


def generate_records(settings: CatalogueSettings, stream: str = "shop") -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Records in the format of ``items_shuffle.json``, each with its entry of ``items_ins_v2.json``.

    ``stream`` names one of several independent catalogues of the same seed.
    """
    rng = keyed_generator(settings.seed, "catalogue", stream)
    count = sum(len(group.kinds) * len(group.makers) * len(group.styles) for group in CATEGORIES.values())
    # All catalogues use the same codes, few enough for each to be one token of the tiny model.
    numbers = rng.permutation(np.arange(100, 100 + count))
    made: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name, category in CATEGORIES.items():
        for kind in category.kinds:
            for maker in category.makers:
                # A maker's products of one kind have the same colors and sizes.
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
    article = "" if kind.endswith("s") else "an " if words[0] in "aeiou" else "a "
    attributes = {
        "attributes": [quality, style],
        "instruction": f"Find me {article}{words}",
        "instruction_attributes": wanted,
    }
    return record, attributes


def _pricing(low: int, high: int, rng: np.random.Generator) -> str:
    price = int(rng.integers(low, high + 1))
    draw = rng.random()
    if draw < 0.03:
        return ""
    return f"${price}.00" if draw < 0.9 else f"${price}.00 - ${price + int(rng.integers(1, 10))}.00"


def _values(values: tuple[str, ...], count: int, rng: np.random.Generator) -> list[Mapping[str, str | None]]:
    chosen = sorted(int(index) for index in rng.choice(len(values), size=min(count, len(values)), replace=False))
    return [{"value": values[index], "image": None} for index in chosen]
