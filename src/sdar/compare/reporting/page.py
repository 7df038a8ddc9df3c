"""A report as one HTML page: no script, nothing from elsewhere, dark and light, and readable on a phone."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from sdar.compare.reporting.blocks import Block, Blocks, Bullets, Heading, Listing, Picture, Pictures, Table, Text, cut
from sdar.compare.reporting.drawing import GRID, INK, PALETTE
from sdar.output.printable import printable

DARK = ("#56b4e9", "#f08a4b", "#2fc795", "#d9a0c3", "#f0c34a")
"""The palette on a dark page: the same hues, lighter."""

_STYLE = """\
:root { color-scheme: light dark; --ink: #1a1a1b; --soft: #5b5b60; --grid: #d7d7d8; --page: #fff; --panel: #f5f5f6;
--edge: #0004; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --soft: #a5a5ab; --grid: #3f3f44; --page: #151517;
--panel: #202023; --edge: #fff5; DARK } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .5rem }
h2 { border-top: 1px solid var(--grid); padding-top: .8rem }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; list-style: none; font-size: .9rem }
a { color: var(--c0) }
.scroll { overflow-x: auto; margin: .8rem 0 1.2rem;
  background: linear-gradient(to right, var(--page) 40%, transparent) left / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--page) 40%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to right, var(--edge), transparent) left / .9rem 100% no-repeat,
    linear-gradient(to left, var(--edge), transparent) right / .9rem 100% no-repeat }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
.caption { color: var(--soft); font-size: .875rem; margin: 1.2rem 0 0; max-width: 50rem }
.caption + .scroll { margin-top: .3rem }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid) }
td.w { min-width: 8.5rem }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); max-width: 40vw }
td.n { white-space: nowrap } th.n, td.n { text-align: right } th { font-weight: 600; vertical-align: bottom }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.2rem;
  align-items: start }
.even { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); max-width: 62rem }
figure { margin: 0; min-width: 0 } figure svg { display: block; width: 100%; height: auto; max-width: 30rem }
figcaption { font-size: .8rem; line-height: 1.35; color: var(--soft); max-width: 30rem }
pre { background: var(--panel); padding: .7rem; overflow-x: auto; font-size: .8rem; white-space: pre-wrap }
summary { cursor: pointer; font-weight: 600 }
@media print { details > * { display: block } .scroll { overflow: visible } }
"""

_BREAK = re.compile(r"([/_=,.])")
"""Behind which a name in a cell may be broken, where the page is narrow."""
_SHORT = 13
"""Letters of a cell that is not to be broken into single words on a phone, where a table may be scrolled instead."""
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')


def page(blocks: Blocks) -> str:
    """The page. Everything that comes from runs is escaped, and shown with escapes where it would act on a terminal."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    body = "\n".join(_body(blocks))
    style = _STYLE.replace("LIGHT", _colours(PALETTE)).replace("DARK", _colours(DARK))
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{_text(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _colours(palette: tuple[str, ...]) -> str:
    return " ".join(f"--c{number}: {colour};" for number, colour in enumerate(palette))


def _body(blocks: Blocks) -> Iterator[str]:
    headings = [(n, block) for n, block in enumerate(blocks) if isinstance(block, Heading) and block.level == 2]
    for number, block in enumerate(blocks):
        if isinstance(block, Heading) and block.level == 1:
            links = "".join(f'<li><a href="#s{n}">{_text(one.text)}</a></li>' for n, one in headings)
            yield f"<h1>{_text(block.text)}</h1>\n<nav><ul>{links}</ul></nav>"
        else:
            yield _block(block, number)


def _block(block: Block, number: int) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="s{number}">{_text(block.text)}</h{block.level}>'
        case Text():
            return f"<p>{_text(block.text)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block)
        case Listing():
            lines = "\n".join(_text(line, 4000) for line in block.lines)
            is_open = " open" if len(block.lines) < 2 else ""
            return f"<details{is_open}><summary>{_text(block.title)}</summary><pre>{lines}</pre></details>"
        case Pictures():
            kind = "pictures even" if len(block.pictures) in (1, 2, 4) else "pictures"
            return f'<div class="{kind}">{"".join(map(_picture, block.pictures))}</div>'


def _table(table: Table) -> str:
    classes = [""] * len(table.words) + [' class="n"'] * len(table.figures)
    head = "".join(
        f"<th{kind}>{_text(cell)}</th>" for kind, cell in zip(classes, table.words + table.figures, strict=True)
    )
    rows = "\n".join(
        f"<tr>{''.join(_cell(cell, kind) for kind, cell in zip(classes, row, strict=True))}</tr>" for row in table.rows
    )
    # Not a caption element, which would be as wide as the table and be cut with it.
    caption = f'<p class="caption">{_text(table.caption)}</p>' if table.caption else ""
    # Reached by the keyboard, so that a table that is too wide can be scrolled without a mouse.
    inside = f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
    return f'{caption}<div class="scroll" tabindex="0"><table>{inside}</table></div>'


def _cell(text: str, kind: str) -> str:
    if kind:
        return f"<td{kind}>{_text(text)}</td>"
    wide, broken = ' class="w"' if len(text) > _SHORT else "", _BREAK.sub(r"\1<wbr>", _text(text))
    return f"<td{wide}>{broken}</td>"


def _picture(picture: Picture) -> str:
    svg = _REFERENCE.sub(rf"\g<1>{picture.name}-", picture.svg)  # pictures have ids in common
    for colour, name in ((INK, "ink"), (GRID, "grid"), *((c, f"c{n}") for n, c in enumerate(PALETTE))):
        svg = svg.replace(colour, f"var(--{name})")
    label = _text(picture.title)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    caption = f"<figcaption>{_text(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure>{svg}{caption}</figure>"


def _text(text: str, most: int = 400) -> str:
    return html.escape(printable(cut(text, most)))
