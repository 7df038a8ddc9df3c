"""Products of the shop, parsed from records in the original format (``items_shuffle*.json``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdar.files import brief

NO_PRICE = 100.0
"""Price of a product without one."""


class RecordError(Exception):
    """A mistake in a record. The text is a clause."""


@dataclass(frozen=True, slots=True)
class Order:
    """A human instruction for a product, with the attributes and option values that it asks for."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """One product.

    ``pricing``      one price in dollars, or the two ends of a range
    ``price_tag``    the price as shown on pages
    ``options``      option name (lower case) -> its values (lower case), in the order of the page
    ``attributes``   attributes that the reward compares with those of a goal
    ``query``        the search that the product was collected with: its type
    ``instruction``  synthetic instruction; None: the product has no synthetic goal
    ``orders``       human instructions (``items_human_ins.json``)
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    pricing: tuple[float, ...]
    price_tag: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str
    instruction: str | None = None
    instruction_attributes: tuple[str, ...] = ()
    orders: tuple[Order, ...] = ()

    @property
    def contents(self) -> str:
        """The indexed text: title, description, first bullet point and options, in lower case."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join([self.title, self.description, self.bullets[0] if self.bullets else "", options]).lower()


def read_product(
    record: Mapping[str, Any], attributes: Mapping[str, Any] | None, orders: Sequence[Mapping[str, Any]] = ()
) -> Product | None:
    """The product of a record; None for one that the original omits (no ASIN, or one that is too long).

    ``attributes`` and ``orders`` are the product's entries in ``items_ins_v2*.json`` and ``items_human_ins.json``.

    Raises:
        RecordError: a field is missing or has the wrong type.
    """
    asin = _text(record, "asin")
    if asin == "nan" or len(asin) > 10:
        return None
    bullets = record.get("small_description")
    pricing, price_tag = _pricing(record.get("pricing"))
    known = {} if attributes is None else attributes
    if not isinstance(known, Mapping):
        raise RecordError(f"its entry of attributes must be a mapping, got {brief(known)}")
    return Product(
        asin=asin,
        title=_text(record, "name"),
        description=_text(record, "full_description"),
        bullets=tuple(map(str, bullets)) if isinstance(bullets, list) else (str(bullets or ""),),
        pricing=pricing,
        price_tag=price_tag,
        options=_options(record.get("customization_options")),
        attributes=_texts(known, "attributes") if "attributes" in known else ("DUMMY_ATTR",),
        category=_text(record, "category"),
        query=_text(record, "query").lower().strip(),
        product_category=_text(record, "product_category"),
        instruction=None if known.get("instruction") is None else _text(known, "instruction"),
        instruction_attributes=_texts(known, "instruction_attributes") if known.get("instruction_attributes") else (),
        orders=_orders(orders),
    )


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise RecordError(f"{field} must be a string, got {brief(value)}")
    return value


def _texts(record: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = record.get(field)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise RecordError(f"{field} must be a list of strings, got {brief(value)}")
    return tuple(value)


def _orders(orders: Sequence[Mapping[str, Any]]) -> tuple[Order, ...]:
    if not isinstance(orders, Sequence) or not all(isinstance(order, Mapping) for order in orders):
        raise RecordError(f"its human instructions must be a list of mappings, got {brief(orders)}")
    return tuple(
        Order(
            instruction=_text(order, "instruction"),
            attributes=_texts(order, "instruction_attributes"),
            options=_texts(order, "instruction_options"),
        )
        for order in orders
    )


def _pricing(text: Any) -> tuple[tuple[float, ...], str]:
    """Prices in dollars and the price tag of ``"$a"``, ``"$a - $b"`` or an empty text.

    A price without a number counts as missing, whereas the original fails.
    """
    parts = str(text or "").split("$")[1:]
    numbers = [re.sub(r"[^\d.]", "", part) for part in parts]
    try:
        prices = tuple(float(number) for number in numbers)
    except ValueError:
        prices = ()
    if not prices:
        return (NO_PRICE,), f"${NO_PRICE}"
    if len(prices) == 1:
        return prices, f"${prices[0]}"
    return prices[:2], f"${prices[0]} to ${prices[1]}"


def _options(table: Any) -> dict[str, tuple[str, ...]]:
    if not table:
        return {}
    if not isinstance(table, Mapping):
        raise RecordError(f"customization_options must be a mapping, got {brief(table)}")
    options: dict[str, tuple[str, ...]] = {}
    for name, contents in table.items():
        if contents is None:
            continue
        try:
            values = [content["value"].strip().replace("/", " | ").lower() for content in contents]
        except (TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"customization_options[{brief(name)}] has an entry without a value") from error
        options[str(name).lower()] = tuple(values)
    return options
