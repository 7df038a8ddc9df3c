"""Ranges of numbers, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """The numbers a setting may take; bounds are included unless ``above`` or ``below`` is used. None: no bound."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def contains(self, value: float) -> bool:
        """Whether the number is allowed."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def describe(self) -> str:
        """The range in words, as in "at least 2" or "above 0 and at most 1"."""
        parts = [
            f"{words} {bound if isinstance(bound, int) else format(bound, 'g')}"
            for words, bound in (
                ("at least", self.at_least),
                ("above", self.above),
                ("at most", self.at_most),
                ("below", self.below),
            )
            if bound is not None
        ]
        return " and ".join(parts) if parts else "any number"


NOT_NEGATIVE = Range(at_least=0)
POSITIVE = Range(above=0)
AT_LEAST_ONE = Range(at_least=1)
FRACTION = Range(at_least=0, at_most=1)
