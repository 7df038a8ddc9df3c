"""What only a terminal gets: colours, and lines that end between words."""

from __future__ import annotations

import shutil
import sys
import textwrap

from rich.console import Console
from rich.text import Text

COLUMNS = 80
"""Width that every line of ours fits, and the width of a terminal that does not tell its own."""


def show(text: Text) -> None:
    """Print a line, with its styles where standard output is a terminal (and ``NO_COLOR`` is not set)."""
    Console(file=sys.stdout, force_jupyter=False, legacy_windows=False).print(text, soft_wrap=True, highlight=False)
    sys.stdout.flush()


def show_wrapped(text: str) -> None:
    """Print a text that is printable, wrapped between words where standard output is a terminal."""
    columns = shutil.get_terminal_size((COLUMNS, 24)).columns
    print(wrapped(text, columns) if sys.stdout.isatty() else text, flush=True)


def wrapped(text: str, columns: int) -> str:
    """The text with no line longer than ``columns``, unless a single word is; words stay whole.

    What was a line stays one or becomes several, of which all but the first are indented by two more spaces
    where there is room.
    """
    return "\n".join(_wrapped_line(line, columns) for line in text.split("\n"))


def _wrapped_line(line: str, columns: int) -> str:
    if len(line) <= columns:
        return line
    indent = line[: len(line) - len(line.lstrip())] + "  "
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=indent if 2 * len(indent) < columns else "",
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
