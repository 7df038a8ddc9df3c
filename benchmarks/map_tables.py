"""The map of self-distillation as tables and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from map_cells import BASELINE, PLAN, Outcome

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
    """Markdown: a table per regime."""
    parts = []
    found = rows(outcomes)
    for regime in dict.fromkeys(row.regime for row in found):
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


CALLED = {
    "turns6": "ALFWorld, 6 turns",
    "turns8": "ALFWorld, 8 turns",
    "turns14": "ALFWorld, 14 turns",
    "strong_start": "ALFWorld, 14 turns, strong start",
    "turns8_stale": "ALFWorld, 8 turns, stale steps",
    "webshop": "WebShop",
    "search_qa": "Search-QA",
    "arithmetic_short": "arithmetic, groups of 8",
    "arithmetic_group4": "arithmetic, groups of 4",
    "arithmetic_group16": "arithmetic, groups of 16",
    "arithmetic_stale": "arithmetic, stale steps",
    "arithmetic": "arithmetic, 40 iterations",
}
"""Regimes in the picture's order, and their headings there."""


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Difference to GRPO over the coefficient, a panel per regime and a line per method."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    found = rows(outcomes)
    played = dict.fromkeys(row.regime for row in found if row.difference is not None)
    regimes = [*(name for name in CALLED if name in played), *(name for name in played if name not in CALLED)]
    methods = [m for m in PLAN["methods"] if any(row.method == m and row.difference is not None for row in found)]
    if not methods:
        return
    colours = plt.get_cmap("tab20")(range(20))
    # More methods than colours: the others have squares.
    styles: dict[str, Any] = {
        method: {"color": colours[number % 20], "marker": "os^"[number // 20]} for number, method in enumerate(methods)
    }
    columns = min(len(regimes), 3)
    lines = -(-len(regimes) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.4 * lines), sharey=True, squeeze=False)
    for axis, regime in zip(axes.flat, regimes, strict=False):
        axis.axhline(0, color="black", linewidth=0.8)
        for method in methods:
            points = [r for r in found if r.regime == regime and r.method == method and r.difference is not None]
            points = sorted(points, key=lambda row: row.coefficient or 1.0)
            if points:
                values = [row.difference.mean for row in points if row.difference is not None]
                axis.plot([r.coefficient or 1.0 for r in points], values, label=method, **styles[method])
        title = CALLED.get(regime, regime)
        axis.set(xscale="log", xlim=(0.007, 4.5), title=title, xlabel="distillation coefficient")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(regimes) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("success alone, points above GRPO")
    handles = {label: h for axis in axes.flat for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=5, fontsize="small", frameon=False)
    figure.tight_layout(rect=(0, (0.2 + 0.2 * -(-len(handles) // 5)) / (3.4 * lines), 1, 1))
    figure.savefig(path, dpi=120)
