"""``sdar report``: run folders as one page that can be sent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdar.errors import USER_ERROR, UserError, command
from sdar.files import expanded
from sdar.output.printable import printable

if TYPE_CHECKING:
    from sdar.compare.reporting.collection import Group

_OUT = "out="
_NAMED = 4
"""Kinds of runs in the title; the others are counted."""

_HELP = """\
usage: sdar report RUN [RUN ...] [out=FOLDER]

Writes report.html (one file, with all pictures in it), report.md and pictures/*.svg into FOLDER (report).
RUN is the folder of a run, or a folder with runs somewhere below. Runs that differ in nothing but the seed are one
method; the method of the first run is the baseline. The same is written by every sdar compare. Pictures need the extra
sdar[plot]. What is in it: docs/reporting.md
"""


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    if {"--help", "-h"} & set(arguments) or not arguments:
        print(_HELP, end="")
        return 0 if arguments else USER_ERROR
    for word in arguments:
        if word.startswith("-"):
            raise UserError(f"there is no option {word}; sdar report takes folders, and out=FOLDER")
    places = [expanded(word) for word in arguments if not word.startswith(_OUT)]
    outs = [word.removeprefix(_OUT) for word in arguments if word.startswith(_OUT)]
    return _report(places, _out(outs[-1] if outs else "report"))


def _out(name: str) -> Path:
    from sdar.run.folder import check_writable

    if not name:
        raise UserError("out must be a folder, got nothing")
    folder = expanded(name)
    check_writable("out", folder)
    return folder


def _report(places: Sequence[Path], out: Path) -> int:
    from sdar.compare.reporting.collection import collect
    from sdar.compare.reporting.contents import contents
    from sdar.compare.reporting.drawing import can_draw
    from sdar.compare.reporting.writing import write_report

    collection = collect(places)
    for sentence in collection.left:
        print(printable(sentence), file=sys.stderr)
    if not can_draw():
        print("the report has no pictures: they need matplotlib, pip install 'sdar[plot]'", file=sys.stderr)
    file = write_report(out, contents(collection, _title(collection.groups), draw=can_draw()))
    print(f"report: {file}")
    return 0


def _title(groups: Sequence[Group]) -> str:
    """What the report is about, and how many runs."""
    count = sum(len(group.runs) for group in groups)
    names = [group.name for group in groups[:_NAMED]]
    names += [f"{len(groups) - _NAMED} more kinds"] if len(groups) > _NAMED else []
    return f"{'; '.join(names)}: {count} run{'s' if count > 1 else ''}"
