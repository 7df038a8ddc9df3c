"""Shortened pages for the tiny model: without repeated elements, and with one line per listed product.

Unlike on the page, the title comes before the code, so that copying the title leads to the code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sdar.environments.webshop.shop import BUY, NEXT, PREVIOUS, RESTART, SUB_PAGES

_REPEATED = frozenset({RESTART, PREVIOUS, NEXT, BUY, "Rating: N.A.", *SUB_PAGES})
_RESULTS = re.compile(r"Page -?\d+ \(Total results: ")
_PRICE = re.compile(r"\$[\d.]+(e[+-]\d+)?( to \$[\d.]+(e[+-]\d+)?)?")


def terse_page(texts: Sequence[str]) -> str:
    """The shortened page of an observation's ``texts`` after the instruction."""
    kept = [text for text in texts if text and text not in _REPEATED]
    if not kept or _RESULTS.match(kept[0]) is None:
        return ", ".join(kept)
    lines, line = [kept[0].partition(" (")[0]], list[str]()
    for text in kept[1:]:
        line.append(text)
        if _PRICE.fullmatch(text) is not None:  # the last text of every product, even of one without a title
            code, *title = line[:-1]
            lines.append(" ".join([*title, code, text]))
            line = []
    return "\n ".join(lines)
