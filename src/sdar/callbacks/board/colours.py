"""The colours of a gap, those of the episode browser: orange and blue, which colour-blind people can tell apart."""

from __future__ import annotations

from itertools import pairwise

Colour = tuple[int, int, int]

EDGES = (0.01, 0.1, 0.5, 2.0)
"""Nats. Where a shade begins; a gap nearer to 0 than the first has none."""
REJECTED = ("#fdebd3", "#fbd3a0", "#f6ae5a", "#e5801a")
ENDORSED = ("#e0eefa", "#b9daf4", "#7ab6e8", "#4595da")
"""From the first edge outwards, behind black letters."""


def rgb(colour: str) -> Colour:
    """The parts of a colour ``#rrggbb``."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


_WHITE = rgb("#ffffff")
_SHADES = {
    **{-size: rgb(colour) for size, colour in enumerate(REJECTED, 1)},
    0: _WHITE,
    **{size: rgb(colour) for size, colour in enumerate(ENDORSED, 1)},
}


def level(gap: float) -> int:
    """The shade of a gap in nats: -4 (rejected) to 4 (endorsed). One that is not a number has none."""
    size = sum(abs(gap) >= edge for edge in EDGES)
    return -size if gap < 0 else size


def shade(size: int) -> Colour:
    """The colour of a level in [-4, 4]."""
    return _SHADES[size]


def mixed(part: float, first: Colour, second: Colour) -> Colour:
    """A colour between two; ``part``: of the second, in [0, 1]."""
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def blend(value: float) -> Colour:
    """A colour of the same scale without steps, for a value in [-1, 1]; what lies beyond has the outermost one."""
    place = min(max(value, -1.0), 1.0) * len(EDGES)
    for low, high in pairwise(range(-len(EDGES), len(EDGES) + 1)):
        if place <= high:
            return mixed(place - low, _SHADES[low], _SHADES[high])
    return _WHITE  # not a number
