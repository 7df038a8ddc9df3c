"""A drawing as SVG that reads well on light and on dark pages: what the drawn pictures of the documentation share.

It brings its own background, follows the reader's colour scheme, and refers to nothing outside of itself. Colours are
those of the episode browser (``src/sdar/look/page.css``), by their names there: ``n4`` ... ``p4`` for gaps, ``ink``,
``faint``, ``line``, ``panel``, ``back``, ``mark``, ``on``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from xml.sax.saxutils import escape, quoteattr

from sdar.compare.reporting.drawing import PALETTE
from sdar.compare.reporting.page import DARK as DARK_PALETTE

SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
MONO = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace'

METHODS = ("first", "second", "third", "fourth", "fifth")
"""Colours of methods side by side; those of a report."""
_OWN = {
    "gain": ("#7656c8", "#a48be6"),
    "pale": ("#e9e3f8", "#372f52"),
    **dict(zip(METHODS, zip(PALETTE, DARK_PALETTE, strict=True), strict=True)),
}
"""Colours that the browser does not have, light and dark: of advantages, apart from those of gaps, and of methods."""
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def gap_colour(level: int) -> str:
    """The name of a level's colour, -4 (rejected) to 4 (endorsed); ``back`` where there is none."""
    return f"p{level}" if level > 0 else f"n{-level}" if level else "back"


class Drawing:
    """Shapes and texts in the order in which they are laid. Lengths are in pixels of a page at full width.

    Args:
        width: of the drawing; its height is given at the end.
        title: what it shows, for those who hear it.
        description: what there is to see.
        source: the command that writes it.
    """

    def __init__(self, width: int, title: str, description: str, source: str) -> None:
        self.width, self.title, self.description, self.source = width, title, description, source
        self._parts: list[str] = []
        self._used = {("fill", "back"), ("stroke", "line")}

    def text(
        self,
        x: float,
        y: float,
        *words: str | tuple[str, str],
        size: int = 15,
        colour: str = "ink",
        anchor: str = "start",
        bold: bool = False,
        mono: bool = False,
        width: float | None = None,
    ) -> None:
        """One line with its baseline at ``y``; parts may have colours of their own, as (part, colour).

        ``width``  the length that it takes with whatever font there is; None: the font's.
        """
        inner = ""
        for part in words:
            if isinstance(part, tuple):
                inner += f"<tspan{self._class(fill=part[1])}>{_shown(part[0])}</tspan>"
            else:
                inner += _shown(part)
        more = f' font-size="{size}"' if size != 15 else ""
        more += f' text-anchor="{anchor}"' if anchor != "start" else ""
        more += ' font-weight="600"' if bold else ""
        more += f' textLength="{width:g}" lengthAdjust="spacingAndGlyphs"' if width is not None else ""
        names = self._class("mono" if mono else "", fill=colour)
        self._parts.append(f'<text x="{x:g}" y="{y:g}"{names}{more} xml:space="preserve">{inner}</text>')

    def lines(self, x: float, y: float, texts: Sequence[str], step: int = 20, **options: object) -> float:
        """Lines below each other; the baseline of the next one."""
        for text in texts:
            self.text(x, y, text, **options)  # type: ignore[arg-type]
            y += step
        return y

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "panel",
        stroke: str | None = None,
        radius: float = 3,
        thick: float = 1,
    ) -> None:
        """A rectangle with round corners."""
        shape = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
        shape += f' stroke-width="{thick:g}"' if stroke and thick != 1 else ""
        self._parts.append(f"{shape}{self._class(fill=fill, stroke=stroke)}/>")

    def path(
        self,
        data: str,
        fill: str | None = None,
        stroke: str | None = None,
        thick: float = 2,
        dash: str = "",
        opacity: float = 1,
    ) -> None:
        """Any line or area, in SVG's language of paths; ``dash``: lengths of strokes and of what is between them."""
        names = self._class("" if fill else "open", fill=fill, stroke=stroke)
        more = f' stroke-width="{thick:g}" stroke-linecap="round" stroke-linejoin="round"' if stroke else ""
        more += f' stroke-dasharray="{dash}"' if dash else ""
        more += f' opacity="{opacity:g}"' if opacity != 1 else ""
        self._parts.append(f'<path d="{data}"{names}{more}/>')

    def arrow(self, *points: tuple[float, float], colour: str = "faint", bend: float = 10) -> None:
        """Through points that follow each other along one axis, with round corners and a head at the last."""
        (x1, y1), (x2, y2) = points[-2:]
        dx, dy = _sign(x2 - x1), _sign(y2 - y1)
        data = "M{:g} {:g}".format(*points[0])
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            into, out = _towards(corner, before, bend), _towards(corner, after, bend)
            data += "L{:g} {:g}Q{:g} {:g} {:g} {:g}".format(*into, *corner, *out)
        self.path(f"{data}L{x2 - 6 * dx:g} {y2 - 6 * dy:g}", stroke=colour)
        left, right = (x2 - 9 * dx - 5 * dy, y2 - 9 * dy - 5 * dx), (x2 - 9 * dx + 5 * dy, y2 - 9 * dy + 5 * dx)
        self.path("M{:g} {:g}L{:g} {:g}L{:g} {:g}Z".format(x2, y2, *left, *right), fill=colour)

    def document(self, height: float) -> str:
        """The whole file."""
        light, dark = _palettes()
        styles = [f"svg {{ font: 15px {SANS}; }}", f".mono {{ font-family: {MONO}; }}", ".open { fill: none; }"]
        styles += self._rules(light)
        styles += ["@media (prefers-color-scheme: dark) {", *(f"  {rule}" for rule in self._rules(dark)), "}"]
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height:g}" width="{self.width}"'
            f' height="{height:g}" role="img" aria-label={quoteattr(_clean(self.title))}>'
        )
        ground = f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{height - 1:g}" rx="10"'
        return "\n".join(
            [
                head,
                f"<metadata>Written by: {_shown(self.source)}</metadata>",
                f"<title>{_shown(self.title)}</title>",
                f"<desc>{_shown(self.description)}</desc>",
                "<style>",
                *styles,
                "</style>",
                f"{ground}{self._class(fill='back', stroke='line')}/>",
                *self._parts,
                "</svg>\n",
            ]
        )

    def _class(self, *names: str, fill: str | None = None, stroke: str | None = None) -> str:
        """The attribute for these colours, which are then known to be used."""
        pairs = [(kind, name) for kind, name in (("fill", fill), ("stroke", stroke)) if name is not None]
        self._used.update(pairs)
        return f' class="{" ".join([*filter(None, names), *(f"{kind[0]}-{name}" for kind, name in pairs)])}"'

    def _rules(self, palette: dict[str, str]) -> list[str]:
        return [f".{kind[0]}-{name} {{ {kind}: {palette[name]}; }}" for kind, name in sorted(self._used)]


def _palettes() -> tuple[dict[str, str], dict[str, str]]:
    """Light and dark, by the browser's names."""
    css = files("sdar.look").joinpath("page.css").read_text(encoding="utf-8")
    found = []
    for number, start in enumerate((r":root \{", r':root\[data-theme="dark"\] \{')):
        block = re.search(start + "(.*?)}", css, re.DOTALL)
        assert block is not None
        own = {name: pair[number] for name, pair in _OWN.items()}
        found.append(dict(re.findall(r"--(\w+): (#\w+)", block[1])) | own)
    return found[0], found[1]


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _shown(text: str) -> str:
    return escape(_clean(text))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _towards(start: tuple[float, float], end: tuple[float, float], distance: float) -> tuple[float, float]:
    return start[0] + distance * _sign(end[0] - start[0]), start[1] + distance * _sign(end[1] - start[1])
