"""Pictures for TensorBoard's pages of images, drawn with Pillow, which TensorBoard itself needs.

A page shows them 350 pixels wide, without smoothing, and larger at a click. They are drawn at twice that size, with
letters that are readable at half of it.
"""

from __future__ import annotations

import importlib.util
import io
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image.metadata import create_summary_metadata

from sdar.callbacks.board.colours import EDGES, Colour, blend, mixed, shade
from sdar.output.printable import printable

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

WIDTH, HEIGHT = 700, 440
INK, SOFT, GRID = (27, 31, 36), (89, 97, 107), (213, 217, 223)
LARGE, SMALL = 26, 22
"""Heights of letters."""
_STEPS, _EDGES_OF_LETTERS = 128, 7
"""Colours of the palette: those of the scale, and between a letter and what it stands on."""


def can_draw() -> bool:
    """Whether Pillow is installed."""
    return importlib.util.find_spec("PIL") is not None


class Canvas:
    """A white picture, 700 x 440. Places are in pixels from its upper left corner; letters stand around a middle."""

    def __init__(self) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", (WIDTH, HEIGHT), "white")
        self._pen = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, size: int = SMALL, colour: Colour = INK, align: str = "l") -> None:
        """A line of letters; ``align``: whether x is its beginning (l), middle (m) or end (r)."""
        self._pen.text((x, y), text, fill=colour, font=_font(size), anchor=f"{align}m")

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A filled rectangle."""
        self._pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)

    def line(self, x: float, y: float, width: float, height: float, colour: Colour = GRID) -> None:
        """A straight line."""
        self._pen.line((x, y, x + width, y + height), fill=colour, width=2)

    def cells(self, x: int, y: int, width: int, height: int, rows: list[list[Colour]]) -> None:
        """A rectangle of coloured cells of one size."""
        from PIL import Image

        image = Image.frombytes(
            "RGB", (len(rows[0]), len(rows)), bytes(part for row in rows for c in row for part in c)
        )
        self.image.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, y))

    def summary(self, tag: str) -> Summary:
        """The picture as PNG, for the pages of images."""
        from PIL import Image

        stream = io.BytesIO()
        self.image.quantize(palette=_palette(), dither=Image.Dither.NONE).save(stream, "PNG")
        picture = Summary.Image(height=HEIGHT, width=WIDTH, colorspace=3, encoded_image_string=stream.getvalue())
        metadata = create_summary_metadata("", "")
        return Summary(value=[Summary.Value(tag=tag, metadata=metadata, image=picture)])


def length(text: str, size: int = SMALL) -> float:
    """How wide a line of letters is."""
    return _font(size).getlength(text)


def fitting(text: str, width: float, size: int = SMALL) -> str:
    """A text of others on one line of at most this width."""
    shown = legible(" ".join(text[:300].split()))[:300]
    if length(shown, size) <= width:
        return shown
    while shown and length(f"{shown}…", size) > width:
        shown = shown[:-1]
    return f"{shown}…"


def legible(text: str) -> str:
    """A text of others with an escape for each character that acts instead of showing, or that the font lacks."""
    return "".join(c if c.isascii() or _has(c) else ascii(c)[1:-1] for c in printable(text))


@cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


@cache
def _palette() -> Image:
    """The colours of our pictures: a quarter of the size, and none of them is moved as by a palette that is found."""
    from PIL import Image

    shades = [shade(size) for size in range(-len(EDGES), len(EDGES) + 1)]
    letters = [(INK, ground) for ground in shades] + [(SOFT, shade(0))]
    colours = [blend(2 * step / _STEPS - 1) for step in range(_STEPS + 1)] + [GRID]
    colours += [
        mixed(step / _EDGES_OF_LETTERS, ground, ink)
        for ink, ground in letters
        for step in range(1, _EDGES_OF_LETTERS + 1)
    ]
    image = Image.new("P", (1, 1))
    image.putpalette([part for colour in colours for part in colour])
    return image


@lru_cache(4096)
def _has(character: str) -> bool:
    return _drawn(character) != _drawn("\uffff")


def _drawn(character: str) -> bytes:
    from PIL import Image, ImageDraw

    image = Image.new("L", (2 * LARGE, 2 * LARGE))
    ImageDraw.Draw(image).text((0, 0), character, fill=255, font=_font(SMALL))
    return image.tobytes()
