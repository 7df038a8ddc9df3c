"""A shop with a few explicit products."""

from __future__ import annotations

from sdar.environments.webshop.environment import open_shop
from sdar.environments.webshop.goals import Goal
from sdar.environments.webshop.nouns import noun_source
from sdar.environments.webshop.product import Product, read_product
from sdar.environments.webshop.shop import Session, Shop


def record(asin="B001", name="Red wool scarf", **fields):
    return {
        "asin": asin,
        "name": name,
        "full_description": "Keeps warm.",
        "small_description": ["Soft wool.", "Hand wash."],
        "pricing": "$20.00",
        "images": [],
        "customization_options": {"Color": [{"value": "Red "}, {"value": "Blue/Grey"}], "Size": [{"value": "Small"}]},
        "category": "apparel",
        "query": " Scarves",
        "product_category": "Fashion › Accessories › Scarves",
    } | fields


def product(asin="B001", name="Red wool scarf", attributes=None, **fields) -> Product:
    found = read_product(record(asin, name, **fields), attributes or {"attributes": ["soft wool"]})
    assert found is not None
    return found


def goal(of: Product, **fields) -> Goal:
    wanted = {
        "asin": of.asin,
        "instruction": "Find me a scarf",
        "attributes": ("soft wool",),
        "options": (("color", "red"), ("size", "small")),
        "price_upper": 30.0,
        "query": of.query,
        "name": of.title,
        "category": of.category,
        "product_category": of.product_category,
    }
    return Goal(**(wanted | fields))


def shop(*products: Product) -> Shop:
    return open_shop(products, {p.asin: p.pricing[0] for p in products}, noun_source("words", None))


def session(*products: Product, **wanted) -> Session:
    return Session(shop(*products), goal(products[0], **wanted))


def visit(opened: Session, *actions: str) -> Session:
    for action in actions:
        opened.step(action)
    return opened
