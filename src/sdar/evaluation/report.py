"""The final table of a run: agents side by side on one panel, with n and interval."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from sdar.evaluation.result import EvaluationResult


def final_table(results: Sequence[EvaluationResult], title: str = "Success on the panel") -> str:
    """Two tables of the results, in the given order: the whole panel, and by task type.

    Success and named scores weigh every task equally; the mean over the types is a row of its own.

    The tables are plain ASCII in Markdown format, so they print anywhere and can be pasted. Errors are counted and
    excluded from n; a type without an episode shows "-".
    """
    scores = sorted({name for result in results for name in result.scores})
    whole = _table("agent", "success", "95 % interval", "solved", "n", "errors", "turns", *scores)
    for number, result in enumerate(results, start=1):
        low, high = result.interval
        interval = f"{100 * low:.1f} to {100 * high:.1f}" if result.n else "-"
        counts = map(str, (result.successes, result.n, result.errors))
        turns = f"{result.turns_mean:.1f}" if result.n else "-"
        shown = (_percent(result.scores.get(name, math.nan)) for name in scores)
        whole.add_row(f"{number} {result.name}", _percent(result.success_rate), interval, *counts, turns, *shown)

    types = sorted({name for result in results for name in result.by_type})
    by_type = _table("task type", *(str(number) for number in range(1, len(results) + 1)))
    for name in types:
        by_type.add_row(name, *(_share(result.by_type.get(name)) for result in results))
    macro = (_percent(result.macro_success_rate) for result in results)
    by_type.add_row("macro average (each type weighs the same)", *macro)
    text = f"{title}\n\n{as_text(whole)}"
    if len(types) > 1:
        text += f"\nBy task type, solved/n of each agent\n\n{as_text(by_type)}"
    return text


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f} %"


def _share(counts: tuple[int, int] | None) -> str:
    return "-" if counts is None else f"{counts[1]}/{counts[0]}"


def as_text(table: Table) -> str:
    """A table in Markdown that is also readable as plain text."""
    # Not the terminal's console: the text also goes to files, and must not depend on the terminal.
    stream = io.StringIO()
    Console(file=stream, width=400, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return "".join(f"{line.strip()}\n" for line in stream.getvalue().splitlines() if line.strip())
