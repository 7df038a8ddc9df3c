"""Pages shortened for the tiny model: what every page repeats is left out, a product of a list is one line."""

from __future__ import annotations

from collections.abc import Sequence

from sdar.environments.webshop.shop import BUY, NEXT, PREVIOUS, RESTART, SUB_PAGES

_REPEATED = frozenset({RESTART, PREVIOUS, NEXT, BUY, "Rating: N.A.", *SUB_PAGES})


def terse_page(texts: Sequence[str]) -> str:
    """The page of an observation's ``texts`` after the instruction."""
    kept = [text for text in texts if text not in _REPEATED]
    if kept and kept[0].startswith("Page "):
        lines = [" ".join(kept[at : at + 3]) for at in range(1, len(kept), 3)]
        return "\n".join([kept[0].partition(" (")[0], *lines])
    return ", ".join(kept)
