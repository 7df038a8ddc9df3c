"""Marks in place of a preface's texts, so that these are told apart from the template's own in what it renders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sdar.episode import Preface
from sdar.policy.chat_template import ChatTemplate, json_inside
from sdar.policy.encoding import Pieces, TextEncoder

_MARK = re.compile(r"(SENTINELTEXT[0-9]+END)")


@dataclass(frozen=True)
class Marks:
    """A preface with marks: of the system message, and of those texts of tools that hold a control token.

    The other texts of tools can stay: the template's tokens are those that there are without them.
    """

    system: str | None
    tools: list[dict[str, Any]]
    texts: dict[str, str]

    @classmethod
    def of(cls, preface: Preface, encoder: TextEncoder) -> Marks:
        """The preface, marked."""
        texts: dict[str, str] = {}

        def mark(text: str) -> str:
            texts[f"SENTINELTEXT{len(texts)}END"] = text
            return next(reversed(texts))

        def marked(value: Any) -> Any:
            if isinstance(value, dict):
                return {marked(name): marked(entry) for name, entry in value.items()}
            if isinstance(value, list):
                return [marked(entry) for entry in value]
            return mark(value) if isinstance(value, str) and encoder.controls(value) else value

        system = None if preface.system is None else mark(preface.system)
        return cls(system, [marked(tool.form()) for tool in preface.tools], texts)

    def filled(self, marked: ChatTemplate, real: ChatTemplate) -> Pieces | None:
        """The texts before the first user's text; None: the template does not write the preface as it is.

        ``marked`` renders what was marked, and ``real`` the preface itself.
        """
        parts = _MARK.split(marked.opening.before)
        if self.system not in (None, *parts[1::2]):
            return None
        for write in (json_inside, str):
            texts = {mark: text if mark == self.system else write(text) for mark, text in self.texts.items()}
            pieces = tuple(texts.get(part, "") if place % 2 else part for place, part in enumerate(parts))
            if "".join(pieces) == real.opening.before:
                return pieces
        return None
