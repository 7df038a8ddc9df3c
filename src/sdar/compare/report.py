"""A comparison in words: tables for the screen and for Markdown, and a record with every figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from sdar.compare.comparison import (
    VIEWS,
    Both,
    MethodSummary,
    PairedSummary,
    Runs,
    summarise_methods,
    summarise_pairs,
)
from sdar.compare.records import AFTER, BEFORE, Figure, FinishedRun
from sdar.evaluation.report import as_text
from sdar.evaluation.statistics import FEW_RUNS, Estimate


def report(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> str:
    """The tables, in Markdown that is also readable as it stands. Rates in per cent, differences in points."""
    first = next(iter(runs.values()))
    summaries, pairs = summarise_methods(runs, methods, seeds), summarise_pairs(runs, methods, seeds)
    per_run = _per_run(runs, methods, seeds)
    parts = [
        "Success on the panel, before -> after training, with the 95 % Wilson interval of each run (of its tasks, not "
        f"of other seeds)\n\n{per_run}",
        f"Over the seeds, in per cent: the mean and two 95 % intervals\n\n{_per_method(summaries)}",
    ]
    if pairs:
        parts.append(
            f"After training, minus {methods[0]}, pair by pair (same seed: same tasks, same warm start), in points; "
            "detectable: the true difference that this many pairs show with a probability of 80 % (two-sided test at "
            f"5 %)\n\n{_paired(pairs)}"
        )
    counts = [len(s.seeds) for s in summaries] + [len(p.seeds) for p in pairs]
    parts += _remarks(runs, methods, seeds, counts, pairs)
    parts.append(
        f"Panel {first.panel[:12]}, warm start {first.warm_start[:12]}, {first.iterations} iterations, "
        f"{len(runs)} of {len(methods) * len(seeds)} runs. The answer is about this panel and this warm start."
    )
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def _per_run(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> str:
    table = Table(box=box.MARKDOWN)
    table.add_column("method", no_wrap=True)
    for heading in ("seed", *(f"{view}, %" for view in VIEWS), "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method in methods:
        for seed in seeds:
            run = runs.get((method, seed))
            if run is None:
                table.add_row(method, str(seed), "-", "-", "-")
                continue
            cells = [_change(run, suffix) for suffix in VIEWS.values()]
            table.add_row(method, str(seed), *cells, str(run.figures[AFTER].n))
    return as_text(table)


def _change(run: FinishedRun, suffix: str) -> str:
    before, after = run.figures.get(BEFORE + suffix), run.figures.get(AFTER + suffix)
    if before is None or after is None:
        return "-"
    return f"{100 * before.rate:.1f} -> {100 * after.rate:.1f} ({span(after.interval)})"


def _per_method(summaries: Iterable[MethodSummary]) -> str:
    table = Table(box=box.MARKDOWN)
    table.add_column("method", no_wrap=True)
    table.add_column("played", no_wrap=True)
    for heading in ("seeds", "after", "t", "bootstrap", "rise", "t", "bootstrap"):
        table.add_column(heading, justify="right", no_wrap=True)
    for s in summaries:
        table.add_row(s.method, s.view, str(len(s.seeds)), *_cells(s.after), *_cells(s.rise, "+"))
    return as_text(table)


def _paired(pairs: Iterable[PairedSummary]) -> str:
    table = Table(box=box.MARKDOWN)
    table.add_column("method", no_wrap=True)
    table.add_column("played", no_wrap=True)
    for heading in ("pairs", "difference", "t", "bootstrap", "deviation", "detectable"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pair in pairs:
        table.add_row(
            pair.method,
            pair.view,
            str(len(pair.seeds)),
            *_cells(pair.mean, "+"),
            points(pair.deviation),
            points(pair.detectable),
        )
    return as_text(table)


def _cells(both: Both, sign: str = "") -> list[str]:
    mean = format(100 * both.student.mean, f"{sign}.1f")
    return [mean, span(both.student.interval, sign), span(both.bootstrap.interval, sign)]


def span(interval: tuple[float, float], sign: str = "") -> str:
    """An interval of rates in per cent, as ``low to high``; a dash where it is the whole line."""
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return "-"
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def points(value: float) -> str:
    """A difference of rates in points; a dash where it is not finite."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"


def _remarks(
    runs: Runs, methods: Sequence[str], seeds: Sequence[int], counts: Sequence[int], pairs: Sequence[PairedSummary]
) -> list[str]:
    """What a reader should know before believing a figure."""
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
        low, high = pair.mean.student.interval
        if pair.deviation == 0:
            remarks.append(
                f"{pair.method} - {pair.baseline}, {pair.view}: all pairs differ by the same, so nothing can be said "
                "about how much seeds vary, and the intervals mean nothing."
            )
        elif math.isfinite(low) and low <= 0 <= high:
            remarks.append(
                f"{pair.method} - {pair.baseline}, {pair.view}: the interval holds 0, so no difference is shown; a "
                f"true one below {points(pair.detectable)} points would often be missed with {len(pair.seeds)} pairs."
            )
    missing = [f"{method} seed={seed}" for seed in seeds for method in methods if (method, seed) not in runs]
    if missing:
        remarks.append(f"Without these runs, which are not finished: {', '.join(missing)}.")
    errors = sum(int(row.get("errors", 0)) for run in runs.values() for row in run.results["results"])
    if errors:
        remarks.append(f"{errors} episodes were ended by an error and are left out of n.")
    revisions = {str((run.record.get("git") or {}).get("revision")) for run in runs.values()}
    changed = any((run.record.get("git") or {}).get("changed") for run in runs.values())
    if len(revisions) > 1:
        remarks.append(f"The runs were made by {len(revisions)} revisions of the code: {', '.join(sorted(revisions))}.")
    elif changed:
        remarks.append("Some runs were made by code that differs from its git revision.")
    for package in ("torch", "transformers", "lightning", "numpy"):
        found = {str((run.record.get("versions") or {}).get(package)) for run in runs.values()}
        if len(found) > 1:
            remarks.append(f"The runs were made with {len(found)} versions of {package}: {', '.join(sorted(found))}.")
    return remarks


def as_record(runs: Runs, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Every figure of the comparison, and where it comes from; JSON, null for what is not finite."""
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
                "git": run.record.get("git"),
                "versions": run.record.get("versions"),
                "started": run.record.get("started"),
                "seconds": run.seconds,
                "curve": _curve(run),
                "figures": {name: _figure(figure) for name, figure in run.figures.items()},
            }
            for (method, seed), run in runs.items()
        ],
        "over_seeds": [
            {
                "method": s.method,
                "view": s.view,
                "seeds": list(s.seeds),
                "after": _both(s.after),
                "rise": _both(s.rise),
            }
            for s in summarise_methods(runs, methods, seeds)
        ],
        "paired_differences": [
            {
                "method": pair.method,
                "baseline": pair.baseline,
                "view": pair.view,
                "seeds": list(pair.seeds),
                "differences": list(pair.differences),
                **_both(pair.mean),
                "standard_deviation": pair.deviation,
                "detectable_at_80_percent_power": pair.detectable,
            }
            for pair in summarise_pairs(runs, methods, seeds)
        ],
    }
    finite: dict[str, Any] = _finite(record)
    return finite


def _curve(run: FinishedRun) -> list[dict[str, Any]]:
    """The panel over the course of training; empty in records of earlier versions."""
    kept = ("iterations", "seconds", "name", "n", "successes")
    return [{name: row.get(name) for name in kept} for row in run.results.get("evaluations", [])]


def _figure(figure: Figure) -> dict[str, Any]:
    return {**asdict(figure), "success_rate": figure.rate, "wilson_95": list(figure.interval)}


def _both(both: Both) -> dict[str, Any]:
    def interval(estimate: Estimate) -> list[float]:
        return list(estimate.interval)

    return {
        "mean": both.student.mean,
        "n": both.student.n,
        "student_t_95": interval(both.student),
        "bootstrap_95": interval(both.bootstrap),
    }


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
