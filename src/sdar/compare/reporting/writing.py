"""The files of a report."""

from __future__ import annotations

from pathlib import Path

from sdar.compare.reporting.blocks import Blocks, Pictures
from sdar.compare.reporting.page import page
from sdar.compare.reporting.plain import PICTURES, plain
from sdar.run.folder import write_whole

PAGE_FILE, PLAIN_FILE = "report.html", "report.md"


def write_report(folder: Path, blocks: Blocks) -> Path:
    """Write page, Markdown and pictures into a folder, over those of an earlier report; returns the page."""
    for block in blocks:
        for picture in block.pictures if isinstance(block, Pictures) else ():
            write_whole(folder / PICTURES / f"{picture.name}.svg", picture.svg)
    write_whole(folder / PLAIN_FILE, plain(blocks))
    write_whole(folder / PAGE_FILE, page(blocks))
    return folder / PAGE_FILE
