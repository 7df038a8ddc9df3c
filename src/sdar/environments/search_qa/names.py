"""The words of the closed world, from ``names.yaml``. Each name is a new pair of known words."""

from __future__ import annotations

from sdar.environments.facts import facts_beside

_WORDS: dict[str, tuple[str, ...]] = facts_beside(__file__)

FIRST_NAMES, FAMILY_NAMES = _WORDS["first_names"], _WORDS["family_names"]
TOWN_FIRST, TOWN_SECOND = _WORDS["town_first"], _WORDS["town_second"]
TITLE_FIRST, TITLE_SECOND = _WORDS["title_first"], _WORDS["title_second"]
RIVERS, TRADES, LANGUAGES = _WORDS["rivers"], _WORDS["trades"], _WORDS["languages"]
