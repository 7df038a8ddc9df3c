"""A comparison as Markdown tables, and as a JSON record with every figure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len

from sdar.compare.comparison import VIEWS, PairedSummary, Runs, Sample, summarise_methods, summarise_pairs
from sdar.compare.records import AFTER, BEFORE, Figure, FinishedRun
from sdar.compare.reporting.blocks import Table
from sdar.evaluation.statistics import FEW_RUNS, Estimate


def report(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> str:
    """The tables and remarks in Markdown. Rates are in per cent, differences in points."""
    parts = [
        f"{table.caption}\n\n{markdown_table(table.words, table.figures, table.rows)}"
        for table in tables(runs, methods, seeds)
    ]
    parts += remarks(runs, methods, seeds)
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def tables(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> list[Table]:
    """Every run; every method over its seeds; and every method minus the first, where there are pairs."""
    summaries, pairs = summarise_methods(runs, methods, seeds), summarise_pairs(runs, methods, seeds)
    found = [
        Table(
            ("method",),
            ("seed", *(f"{view}, %" for view in VIEWS), "n"),
            tuple((method, str(seed), *_changes(runs.get((method, seed)))) for method in methods for seed in seeds),
            "Success on the panel, before -> after training, with the 95 % Wilson interval of each run (of its tasks, "
            "not of other seeds)",
        ),
        Table(
            ("method", "played"),
            ("seeds", "after", "t", "bootstrap", "rise", "t", "bootstrap"),
            tuple((s.method, s.view, str(len(s.seeds)), *_mean(s.after), *_mean(s.rise, "+")) for s in summaries),
            "Over the seeds, in per cent: the mean and two 95 % intervals",
        ),
    ]
    if pairs:
        found.append(
            Table(
                ("method", "played"),
                ("pairs", "difference", "t", "bootstrap", "deviation", "detectable"),
                tuple((pair.method, pair.view, str(len(pair.seeds)), *_difference(pair.differences)) for pair in pairs),
                f"After training, minus {methods[0]}, pair by pair (same seed: same tasks, same warm start), in "
                "points; detectable: the true difference that this many pairs show with a probability of 80 % "
                "(two-sided test at 5 %)",
            )
        )
    return found


def remarks(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """How far the figures can be trusted, and what they are about, in sentences."""
    first = next(iter(runs.values()))
    summaries, pairs = summarise_methods(runs, methods, seeds), summarise_pairs(runs, methods, seeds)
    counts = [len(found.seeds) for found in summaries] + [len(found.seeds) for found in pairs]
    return [
        *_remarks_on_figures(counts, pairs),
        *_remarks_on_runs(runs, methods, seeds),
        f"Panel {first.panel[:12]}, warm start {first.warm_start[:12]}, {first.iterations} iterations, "
        f"{len(runs)} of {len(methods) * len(seeds)} runs. The answer is about this panel and this warm start.",
    ]


def markdown_table(words: Sequence[str], figures: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Columns headed by ``words`` are aligned to the left, those of ``figures`` to the right."""
    cells = [[*words, *figures], *map(list, rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "".join(
            f"| {_padded(cell, width, n >= len(words))} "
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    rule = "".join(f"|{'-' * (width + 1)}{':' if n >= len(words) else '-'}" for n, width in enumerate(widths))
    return "".join(f"{line}|\n" for line in (lines[0], rule, *lines[1:]))


def _padded(cell: str, width: int, right: bool) -> str:
    room = " " * (width - cell_len(cell))
    return room + cell if right else cell + room


def _changes(run: FinishedRun | None) -> list[str]:
    """The cells of a run: success before -> after per view, and n. Dashes where it has none."""
    figures = {} if run is None else run.figures
    cells: list[str] = []
    for suffix in VIEWS.values():
        before, after = figures.get(BEFORE + suffix), figures.get(AFTER + suffix)
        if before is None or after is None:
            cells.append("-")
        else:
            cells.append(f"{100 * before.rate:.1f} -> {100 * after.rate:.1f} ({span(after.interval)})")
    return [*cells, str(figures[AFTER].n) if AFTER in figures else "-"]


def mean_and_span(estimate: Estimate, sign: str = "") -> list[str]:
    """Two cells: a mean of rates in per cent, and its interval."""
    return [format(100 * estimate.mean, f"{sign}.1f"), span(estimate.interval, sign)]


def _mean(sample: Sample, sign: str = "") -> list[str]:
    return [*mean_and_span(sample.student, sign), span(sample.bootstrap.interval, sign)]


def _difference(sample: Sample) -> list[str]:
    return [*_mean(sample, "+"), points(sample.deviation), points(sample.detectable)]


def span(interval: tuple[float, float], sign: str = "") -> str:
    """An interval of rates in per cent, as ``low to high``. A dash if it is the whole real line."""
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return "-"
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def points(value: float) -> str:
    """A difference of rates in points. A dash if it is not finite."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"


def _remarks_on_figures(counts: Sequence[int], pairs: Sequence[PairedSummary]) -> list[str]:
    """How far the figures can be trusted. ``counts``: the numbers of seeds behind them."""
    remarks: list[str] = []
    fewest = min(counts, default=0)
    if fewest == 1:
        remarks.append("With one seed nothing is known about other seeds: there is no interval.")
    if fewest < FEW_RUNS:
        remarks.append(
            f"With fewer than {FEW_RUNS} seeds the bootstrap interval is much too narrow; read Student's t, which "
            "assumes that the seeds are roughly normal."
        )
    for pair in pairs:
        found, name = pair.differences, f"{pair.method} - {pair.baseline}, {pair.view}"
        low, high = found.student.interval
        if found.deviation == 0:
            remarks.append(
                f"{name}: all pairs differ by the same, so nothing can be said about how much seeds vary, and the "
                "intervals mean nothing."
            )
        elif math.isfinite(low) and low <= 0 <= high:
            remarks.append(
                f"{name}: the interval holds 0, so no difference is shown; a true one below "
                f"{points(found.detectable)} points would often be missed with {len(pair.seeds)} pairs."
            )
    return remarks


def _remarks_on_runs(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Missing runs, and differing versions."""
    remarks: list[str] = []
    missing = [f"{method} seed={seed}" for seed in seeds for method in methods if (method, seed) not in runs]
    if missing:
        remarks.append(f"Without these runs, which are not finished: {', '.join(missing)}.")
    revisions = _distinct(runs, "git", "revision")
    if len(revisions) > 1:
        remarks.append(f"The runs were made by {len(revisions)} revisions of the code: {', '.join(revisions)}.")
    elif "True" in _distinct(runs, "git", "changed"):
        remarks.append("Some runs were made by code that differs from its git revision.")
    for package in ("torch", "transformers", "lightning", "numpy"):
        found = _distinct(runs, "versions", package)
        if len(found) > 1:
            remarks.append(f"The runs were made with {len(found)} versions of {package}: {', '.join(found)}.")
    return remarks


def _distinct(runs: Runs, group: str, name: str) -> list[str]:
    """The different values of ``record[group][name]`` over the runs, sorted."""
    return sorted({str((run.record.get(group) or {}).get(name)) for run in runs.values()})


def as_record(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Every figure of the comparison and its origin, in JSON values. Null stands for what is not finite."""
    record = {
        "baseline": methods[0],
        "methods": list(methods),
        "seeds": list(seeds),
        "runs": [
            {
                "method": method,
                "seed": seed,
                "folder": str(run.folder),
                "panel": run.panel,
                "initial_weights": run.warm_start,
                "iterations": run.iterations,
                **{name: run.record.get(name) for name in ("git", "versions", "started")},
                "seconds": run.seconds,
                "curve": _curve(run),
                "figures": {name: _figure(figure) for name, figure in run.figures.items()},
            }
            for (method, seed), run in runs.items()
        ],
        "over_seeds": [
            {**vars(found), "after": _estimates(found.after), "rise": _estimates(found.rise)}
            for found in summarise_methods(runs, methods, seeds)
        ],
        "paired_differences": [
            {
                **vars(pair),
                "differences": pair.differences.values,
                **_estimates(pair.differences),
                "standard_deviation": pair.differences.deviation,
                "detectable_at_80_percent_power": pair.differences.detectable,
            }
            for pair in summarise_pairs(runs, methods, seeds)
        ],
    }
    # JSON has neither NaN nor infinity.
    finite: dict[str, Any] = json.loads(json.dumps(record), parse_constant=lambda _: None)
    return finite


def _curve(run: FinishedRun) -> list[dict[str, Any]]:
    """The panel over the course of training. Empty in records of earlier versions."""
    kept = ("iterations", "seconds", "name", "n", "successes")
    return [{name: row.get(name) for name in kept} for row in run.results.get("evaluations") or ()]


def _figure(figure: Figure) -> dict[str, Any]:
    return {**asdict(figure), "success_rate": figure.rate, "wilson_95": figure.interval}


def _estimates(sample: Sample) -> dict[str, Any]:
    return {
        "mean": sample.student.mean,
        "n": sample.student.n,
        "student_t_95": sample.student.interval,
        "bootstrap_95": sample.bootstrap.interval,
    }
