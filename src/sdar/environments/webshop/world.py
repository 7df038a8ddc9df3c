"""The fictional world of the generated catalogue: products, makers, and the quality that each maker is known for.

Every category has five makers, and the products of a maker usually have one quality that is not in their titles. The
skills contain this knowledge. The same makers occur in other categories with other qualities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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


_COLOURS = ("black", "white", "red", "blue", "green", "grey")

CATEGORIES: Mapping[str, Category] = {
    "apparel": Category(
        levels="Clothing › Everyday Wear",
        kinds={"jacket": (35, 95), "shirt": (8, 45), "sweater": (20, 70), "dress": (15, 80)},
        makers={
            "arvo": "breathable",
            "belto": "stretchy",
            "corvin": "windproof",
            "dunet": "thermal",
            "elmar": "washable",
        },
        styles=("slim", "loose", "hooded", "striped"),
        options={"color": _COLOURS, "size": ("small", "medium", "large", "huge")},
    ),
    "footwear": Category(
        levels="Shoes › Casual Shoes",
        kinds={"boots": (40, 95), "sneakers": (25, 85), "sandals": (10, 50), "slippers": (8, 35)},
        makers={
            "belto": "waterproof",
            "dunet": "cushioned",
            "fenno": "nonslip",
            "gavit": "lightweight",
            "hollin": "reflective",
        },
        styles=("high", "low", "laced", "wide"),
        options={"color": _COLOURS, "size": ("tiny", "narrow", "regular", "broad")},
    ),
    "home": Category(
        levels="Home › Furnishing",
        kinds={"lamp": (15, 80), "curtain": (12, 60), "rug": (25, 95), "pillow": (8, 40)},
        makers={
            "arvo": "handmade",
            "fenno": "stainproof",
            "hollin": "fadeproof",
            "ivora": "odorless",
            "jasko": "recycled",
        },
        styles=("modern", "rustic", "floral", "plain"),
        options={"color": _COLOURS, "size": ("small", "medium", "large", "huge")},
    ),
    "electronics": Category(
        levels="Electronics › Accessories",
        kinds={"headphones": (20, 95), "speaker": (18, 90), "charger": (8, 40), "keyboard": (15, 80)},
        makers={
            "corvin": "wireless",
            "elmar": "waterproof",
            "gavit": "silent",
            "ivora": "rechargeable",
            "arvo": "durable",
        },
        styles=("compact", "folding", "curved", "gaming"),
        options={"color": _COLOURS, "cable": ("short", "long", "braided", "coiled")},
    ),
    "outdoor": Category(
        levels="Sports › Camping",
        kinds={"tent": (40, 95), "backpack": (20, 85), "stove": (15, 70), "hammock": (15, 60)},
        makers={
            "jasko": "waterproof",
            "hollin": "lightweight",
            "corvin": "insulated",
            "belto": "fireproof",
            "gavit": "windproof",
        },
        styles=("rugged", "folding", "double", "narrow"),
        options={"color": _COLOURS, "size": ("small", "medium", "large", "huge")},
    ),
    "beauty": Category(
        levels="Beauty › Daily Care",
        kinds={"shampoo": (8, 30), "lotion": (8, 40), "serum": (15, 70), "soap": (8, 20)},
        makers={"dunet": "vegan", "elmar": "unscented", "fenno": "organic", "jasko": "soothing", "ivora": "mild"},
        styles=("daily", "rich", "clear", "foaming"),
        options={"scent": ("vanilla", "lemon", "rose", "mint", "honey", "pine"), "size": ("mini", "regular", "family")},
    ),
}

DEPARTMENTS = {
    "apparel": "Fashion",
    "footwear": "Fashion",
    "home": "Living",
    "electronics": "Technology",
    "outdoor": "Leisure",
    "beauty": "Care",
}


def category_of(kind: str) -> str:
    """The category that sells a kind of product."""
    return next(name for name, category in CATEGORIES.items() if kind in category.kinds)
