"""Texts between tags, found in one pass over a text of any length."""

from __future__ import annotations

import re
from collections.abc import Iterator


class Tags:
    """Texts between ``<name>`` and the next ``</name>``; those without a closing tag are none.

    A pattern such as ``<name>(.*?)</name>`` finds the same, but looks through the whole rest of a text again for every
    opening that nothing closes.

    ``any_case``  tags are read without regard to case
    """

    def __init__(self, name: str, *, any_case: bool = False) -> None:
        flags = re.IGNORECASE if any_case else 0
        self._opening, self._closing = re.compile(f"<{name}>", flags), re.compile(f"</{name}>", flags)

    def first(self, text: str) -> str | None:
        """The first text between the tags, as it stands there; None: there is none."""
        found = next(self._pairs(text), None)
        return None if found is None else text[found[0].end() : found[1].start()]

    def inside(self, text: str) -> list[str]:
        """All texts between the tags, in order."""
        return [text[opening.end() : closing.start()] for opening, closing in self._pairs(text)]

    def outside(self, text: str) -> str:
        """The text without the tags and what is between them."""
        parts: list[str] = []
        place = 0
        for opening, closing in self._pairs(text):
            parts.append(text[place : opening.start()])
            place = closing.end()
        return "".join([*parts, text[place:]])

    def _pairs(self, text: str) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
        place = 0
        while (opening := self._opening.search(text, place)) and (closing := self._closing.search(text, opening.end())):
            yield opening, closing
            place = closing.end()
