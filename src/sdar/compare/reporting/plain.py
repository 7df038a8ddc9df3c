"""A report in Markdown, beside which the pictures lie as files."""

from __future__ import annotations

import re

from sdar.compare.report import markdown_table
from sdar.compare.reporting.blocks import Block, Blocks, Bullets, Heading, Listing, Pictures, Table, Text, cut
from sdar.output.printable import printable

PICTURES = "pictures"
"""Folder of the pictures, beside the report."""

_ACTING = re.compile(r"([\\`*\[\]|#])")


def plain(blocks: Blocks) -> str:
    """The report as Markdown. What comes from runs can start no markup and no HTML."""
    return "\n".join(map(_block, blocks))


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_text(block.text)}\n"
        case Text():
            return f"{_text(block.text)}\n"
        case Bullets():
            return "".join(f"- {_text(item)}\n" for item in block.items)
        case Table():
            head = f"{_text(block.caption)}\n\n" if block.caption else ""
            rows = [[_text(cell, 120) for cell in row] for row in block.rows]
            return head + markdown_table(
                [_text(word) for word in block.words], [_text(word) for word in block.figures], rows
            )
        case Listing():
            # Indented: no text can end it.
            lines = "".join(f"    {line}\n" for text in block.lines for line in printable(cut(text, 4000)).split("\n"))
            return f"{_text(block.title)}:\n\n{lines}"
        case Pictures():
            images = (
                f"![{_text(one.title)}]({PICTURES}/{one.name}.svg)\n{_text(one.caption)}" for one in block.pictures
            )
            return "".join(f"{image.rstrip()}\n\n" for image in images)


def _text(text: str, most: int = 400) -> str:
    line = " ".join(printable(cut(text, most)).split())
    return _ACTING.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))
