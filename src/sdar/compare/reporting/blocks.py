"""What a report is made of, before it is HTML or Markdown. All texts are as they were found; writers escape them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading; ``level`` 1 is the title of the report."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Columns headed by ``words`` are aligned to the left, those of ``figures`` to the right.

    ``caption``  what the figures are, and in which unit; empty: the text around it says so
    """

    words: tuple[str, ...]
    figures: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Listing:
    """Lines of text as they are, such as commands. ``title`` says what they are."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A drawing.

    ``name``     of its file, without ending
    ``svg``      an ``<svg>`` element; colours are those of a light page
    ``title``    what it shows, for who cannot see it
    ``caption``  how to read it, below it; empty: the picture says so
    """

    name: str
    svg: str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, as many as fit."""

    pictures: tuple[Picture, ...]


Block = Heading | Text | Bullets | Table | Listing | Pictures
Blocks = Sequence[Block]


def cut(text: str, most: int) -> str:
    """The text, cut in the middle where it is longer."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"
