"""The final table of a run: agents side by side on one panel, with n and interval."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from sdar.errors import RunFailed
from sdar.evaluation.result import EvaluationResult
from sdar.output.printable import printable


def final_table(results: Sequence[EvaluationResult], title: str = "Success on the panel") -> str:
    """Two tables of the results, in the given order: the whole panel, and by task type.

    Success and named scores weigh every task equally; the mean over the types is a row of its own.

    The tables are plain ASCII in Markdown format, so they print anywhere and can be pasted. Errors are counted and
    excluded from n, and an agent that has any is marked and told of below the table: its figures are those of the
    episodes that were left, which other agents' figures do not compare with. A type without an episode shows "-".
    """
    scores = sorted({name for result in results for name in result.scores})
    headings = ("success", "95 % interval", "solved", "n", "errors", "turns", *map(printable, scores))
    whole = _table("agent", *headings)
    for number, result in enumerate(results, start=1):
        low, high = result.interval
        interval = f"{100 * low:.1f} to {100 * high:.1f}" if result.n else "-"
        counts = map(str, (result.successes, result.n, result.errors))
        turns = f"{result.turns_mean:.1f}" if result.n else "-"
        shown = (_percent(result.scores.get(name, math.nan)) for name in scores)
        name = f"{number} {result.name}" + (ERROR_MARK if result.errors else "")
        whole.add_row(name, _percent(result.success_rate), interval, *counts, turns, *shown)

    types = sorted({name for result in results for name in result.by_type})
    by_type = _table("task type", *(str(number) for number in range(1, len(results) + 1)))
    for name in types:
        by_type.add_row(printable(name), *(_share(result.by_type.get(name)) for result in results))
    macro = (_percent(result.macro_success_rate) for result in results)
    by_type.add_row("macro average (each type weighs the same)", *macro)
    text = f"{title}\n\n{as_text(whole)}"
    text += "".join(f"\n{note}\n" for result in results if (note := error_note(result)) is not None)
    if len(types) > 1:
        text += f"\nBy task type, solved/n of each agent\n\n{as_text(by_type)}"
    return text


ERROR_MARK = " (!)"
"""Behind the name of an agent some of whose episodes ended by errors."""


def error_note(result: EvaluationResult) -> str | None:
    """A sentence on the episodes that ended by errors; None: there is none."""
    if not result.errors:
        return None
    total = len(result.records)
    return (
        f"(!) {result.name}: {result.errors} of {total} episodes ended by errors; its figures compare with no others."
    )


def check_errors(results: Sequence[EvaluationResult]) -> None:
    """Raise RunFailed where more than half of the episodes of a panel ended by errors."""
    for result in results:
        if 2 * result.errors > len(result.records):
            raise RunFailed(
                f"{result.errors} of the {len(result.records)} episodes of {result.name!r} ended by errors, so the "
                "table says nothing about it; mend the environment and play it again (after training: ckpt_path=last)"
            )


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
    Console(
        file=stream,
        width=400,
        color_system=None,
        force_terminal=False,
        legacy_windows=False,
        markup=False,  # names are an environment's, and "[/]" is no markup
        emoji=False,
    ).print(table)
    return "".join(f"{line.strip()}\n" for line in stream.getvalue().split("\n") if line.strip())
