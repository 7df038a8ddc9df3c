"""The final table of a run: agents side by side on one panel, with n and interval."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from sdar.errors import RunFailed
from sdar.evaluation.result import EvaluationResult
from sdar.output.printable import printable
from sdar.output.terminal import COLUMNS


def final_table(results: Sequence[EvaluationResult], title: str = "Success on the panel") -> str:
    """The results in the given order, for the whole panel and by task type.

    Success and named scores weigh every task equally; the mean over the types is a row of its own.

    The tables are plain ASCII in Markdown format, so they print anywhere and can be pasted; columns that do not fit a
    terminal of 80 go to a further table. Episodes that an error ended are excluded from n, and an agent that has any is
    marked and told of below the table: its figures are those of the episodes that were left, which other agents'
    figures do not compare with. A type without an episode shows "-".
    """
    scores = sorted({name for result in results for name in result.scores})
    agents = [f"{number} {r.name}" + (ERROR_MARK if r.errors else "") for number, r in enumerate(results, start=1)]
    columns = {
        "success": [_percent(result.success_rate) for result in results],
        "95 % interval": [_interval(result) for result in results],
        "solved": [str(result.successes) for result in results],
        "n": [str(result.n) for result in results],
        "turns": [f"{result.turns_mean:.1f}" if result.n else "-" for result in results],
        **{printable(name): [_percent(r.scores.get(name, math.nan)) for r in results] for name in scores},
    }
    text = f"{title}\n\n{_tables('agent', agents, columns)}"
    text += "".join(f"\n{note}\n" for result in results if (note := error_note(result)) is not None)
    types = sorted({name for result in results for name in result.by_type})
    if len(types) > 1:
        by_type = {
            str(number): [_share(result.by_type.get(name)) for name in types] + [_points(result.macro_success_rate)]
            for number, result in enumerate(results, start=1)
        }
        text += "\nBy task type, solved/n of each agent; the macro average weighs types equally\n\n"
        text += _tables("task type", [*map(printable, types), "macro average, %"], by_type)
    return text


ERROR_MARK = " (!)"
"""Behind the name of an agent some of whose episodes ended by errors."""


def error_note(result: EvaluationResult) -> str | None:
    """A sentence on the episodes that ended by errors; None: there is none."""
    if not result.errors:
        return None
    total = len(result.records)
    return f"(!) {result.name}: {result.errors} of {total} episodes ended by errors: not comparable"


def check_errors(results: Sequence[EvaluationResult]) -> None:
    """Raise RunFailed where more than half of the episodes of a panel ended by errors."""
    for result in results:
        if 2 * result.errors > len(result.records):
            raise RunFailed(
                f"{result.errors} of the {len(result.records)} episodes of {result.name!r} ended by errors, so the "
                "table says nothing about it; mend the environment and play it again (after training: ckpt_path=last)"
            )


_FRAME = 3
"""Characters that a column of a table takes beside its text."""


def _tables(first: str, names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> str:
    """The columns beside the names, in as many tables as it takes to fit ``COLUMNS``; each has one column at least."""
    own = 1 + _width(first, names)
    parts: list[list[str]] = [[]]
    taken = own
    for heading, cells in columns.items():
        width = _width(heading, cells)
        if parts[-1] and taken + width > COLUMNS:
            parts.append([])
            taken = own
        parts[-1].append(heading)
        taken += width
    return "\n".join(_table(first, names, {heading: columns[heading] for heading in part}) for part in parts)


def _width(heading: str, cells: Sequence[str]) -> int:
    return max(map(len, (heading, *cells))) + _FRAME


def _table(first: str, names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> str:
    table = Table(box=box.MARKDOWN)
    table.add_column(first, no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(names, *columns.values(), strict=True):
        table.add_row(*row)
    return as_text(table)


def _interval(result: EvaluationResult) -> str:
    low, high = result.interval
    return f"{100 * low:.1f} to {100 * high:.1f}" if result.n else "-"


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{_points(fraction)} %"


def _points(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"


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
