"""The map of self-distillation as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from map_cells import BASELINE, Outcome

from sdar.evaluation.statistics import Estimate, mean_over_runs


@dataclass(frozen=True)
class Row:
    """A cell of the map over its seeds: its success, and the paired difference to GRPO in the same regime (points).

    ``cpu_seconds`` and ``tokens`` (millions) are means over the runs in which they were counted; None: there is none.
    """

    regime: str
    method: str
    coefficient: float | None
    after: Estimate
    with_skills: float | None
    difference: Estimate | None
    pairs: list[float] = field(default_factory=list)
    cpu_seconds: float | None = None
    tokens: float | None = None


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """One per regime, method and coefficient, in the order in which they came."""
    groups: dict[tuple[str, str, float | None], dict[int, Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        groups.setdefault((cell.regime, cell.method, cell.coefficient), {})[cell.seed] = outcome
    found = []
    for (regime, method, coefficient), by_seed in groups.items():
        base = groups.get((regime, BASELINE, None), {})
        pairs = [100 * (o.after - base[seed].after) for seed, o in by_seed.items() if seed in base]
        played = list(by_seed.values())
        found.append(
            Row(
                regime=regime,
                method=method,
                coefficient=coefficient,
                after=mean_over_runs([100 * o.after for o in played]),
                with_skills=_mean([100 * o.after_with_skills for o in played if o.after_with_skills is not None]),
                difference=mean_over_runs(pairs) if pairs and method != BASELINE else None,
                pairs=pairs,
                cpu_seconds=_mean([o.cpu_seconds for o in played if o.cpu_seconds]),
                tokens=_mean([sum(o.tokens.values()) / 1e6 for o in played if o.tokens]),
            )
        )
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a table per regime; methods in the order in which they came, each by coefficient."""
    parts = []
    found = rows(outcomes)
    methods = list(dict.fromkeys(row.method for row in found))
    found = sorted(found, key=lambda row: (methods.index(row.method), row.coefficient or 0.0))
    for regime in dict.fromkeys(outcome.cell.regime for outcome in outcomes):
        start = next(o for o in outcomes if o.cell.regime == regime)
        skilled = "" if start.before_with_skills is None else f", {100 * start.before_with_skills:.1f} % with skills"
        parts.append(f"### {regime}: {100 * start.before:.1f} % alone before training{skilled}\n")
        parts.append(
            "| method | coefficient | n | alone, % | with skills, % | minus GRPO, points | 95 % interval "
            "| CPU s | tokens, M |"
        )
        parts.append("|---" * 9 + "|")
        for row in (row for row in found if row.regime == regime):
            strength = "" if row.coefficient is None else f"{row.coefficient:g}"
            with_skills = "" if row.with_skills is None else f"{row.with_skills:.1f}"
            costs = ["" if row.cpu_seconds is None else f"{row.cpu_seconds:.0f}"]
            costs += ["" if row.tokens is None else f"{row.tokens:.2f}"]
            difference = ["", ""]
            if row.difference is not None:
                low, high = row.difference.interval
                span = f"{low:+.1f} to {high:+.1f}" if row.difference.n > 1 else "one pair"
                span = "equal pairs" if row.difference.n > 1 and high - low < 1e-9 else span
                difference = [f"{row.difference.mean:+.1f}", span]
            words = [row.method, strength, str(row.after.n), f"{row.after.mean:.1f}", with_skills, *difference, *costs]
            parts.append(f"| {' | '.join(words)} |")
        parts.append("")
    return "\n".join(parts)


def grid(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a row per method and a column per coefficient with the mean success alone, the best of a row in bold.

    Of equal ones the better with skills is the best. Methods with other coefficients have a table of their own.
    """
    found = [row for row in rows(outcomes) if row.coefficient is not None]
    parts = []
    for regime in dict.fromkeys(row.regime for row in found):
        methods = dict.fromkeys(row.method for row in found if row.regime == regime)
        tables: dict[tuple[float, ...], list[list[Row]]] = {}
        for method in methods:
            line = [row for row in found if (row.regime, row.method) == (regime, method)]
            tables.setdefault(tuple(row.coefficient or 0.0 for row in line), []).append(line)
        for coefficients, lines in tables.items():
            parts.append(f"| {regime} | {' | '.join(f'{value:g}' for value in coefficients)} |")
            parts.append("|---" * (1 + len(coefficients)) + "|")
            for line in lines:
                best = max(line, key=lambda row: (row.after.mean, row.with_skills or 0.0))
                cells = [f"**{row.after.mean:.1f}**" if row is best else f"{row.after.mean:.1f}" for row in line]
                parts.append(f"| {line[0].method} | {' | '.join(cells)} |")
            parts.append("")
    return "\n".join(parts)
