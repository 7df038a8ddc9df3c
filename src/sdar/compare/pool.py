"""``python -m sdar.compare.pool``: several comparisons of the same methods in one table, and in a picture.

A comparison is about one warm start. Where the same methods were compared on several, every pair (same warm start, same
seed, same tasks) counts once here, and the interval is about other pairs of this kind.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sdar.compare.app import RECORD_FILE
from sdar.compare.records import AFTER, BEFORE, WITH_SKILLS
from sdar.compare.report import points, span
from sdar.errors import USER_ERROR, UserError, command
from sdar.evaluation.report import as_text
from sdar.evaluation.statistics import (
    Estimate,
    detectable_difference,
    mean_over_runs,
    paired_difference,
    standard_deviation,
)

PICTURE = "picture"

_HELP = f"""\
usage: python -m sdar.compare.pool COMPARISON [COMPARISON ...] [{PICTURE}=FILE.png]

COMPARISON is a folder that python -m sdar.compare wrote (or its {RECORD_FILE}). All have to hold the same methods, in
the same order, on the same panel and with as many iterations; warm starts and seeds may differ. {PICTURE} needs the
extra sdar[plot]. What the table means: docs/comparing.md
"""

Pair = tuple[str, int]
"""Hash of the warm start, and the seed."""


@dataclass(frozen=True)
class Outcome:
    """One run: success rates of the student alone, in [0, 1], and ``seconds`` of wall-clock time for training."""

    before: float
    after: float
    after_with_skills: float | None
    seconds: float | None


@dataclass(frozen=True)
class Pool:
    """The runs of all comparisons; the first method is the baseline. Every method has every pair."""

    methods: tuple[str, ...]
    panel: str
    iterations: int | None
    outcomes: Mapping[str, Mapping[Pair, Outcome]]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """In the order of the comparisons."""
        return tuple(self.outcomes[self.methods[0]])

    @property
    def warm_starts(self) -> tuple[str, ...]:
        """Without repetition, in the order of the comparisons."""
        return tuple(dict.fromkeys(warm_start for warm_start, _ in self.pairs))

    def differences(self, method: str, warm_start: str | None = None) -> list[float]:
        """After training, minus the baseline, pair by pair; of one warm start, or of all."""
        ours, base = self.outcomes[method], self.outcomes[self.methods[0]]
        return [ours[pair].after - base[pair].after for pair in self.pairs if warm_start in (None, pair[0])]


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code: 0, or 2 for a mistake of the user, told in one sentence."""
    if {"--help", "-h"} & set(arguments) or not arguments:
        print(_HELP, end="")
        return 0 if arguments else USER_ERROR
    pictures = [word.partition("=")[2] for word in arguments if word.startswith(f"{PICTURE}=")]
    if pictures:
        _check_drawing(pictures[-1])
    pool = read_pool([Path(word) for word in arguments if not word.startswith(f"{PICTURE}=")])
    print(report(pool), end="")
    if pictures:
        draw(pool, Path(pictures[-1]))
    return 0


def read_pool(places: Sequence[Path]) -> Pool:
    """Read comparisons.

    Raises:
        UserError: one that cannot be read or lacks runs, or several that cannot be pooled.
    """
    if not places:
        raise UserError("no comparison is named; allowed are folders that python -m sdar.compare wrote")
    records = {place: _read(place) for place in places}
    (first_place, first), *others = records.items()
    for place, record in others:
        for name, what in (("list of methods", _methods), ("panel", _panel), ("number of iterations", _iterations)):
            if what(record) != what(first):
                raise UserError(
                    f"{place} has another {name} than {first_place}, {what(record)} instead of {what(first)}: only "
                    "comparisons of the same kind can be pooled"
                )
    outcomes: dict[str, dict[Pair, Outcome]] = {method: {} for method in _methods(first)}
    for place, record in records.items():
        for run in record["runs"]:
            pair = (str(run["initial_weights"]), int(run["seed"]))
            if pair in outcomes[run["method"]]:
                raise UserError(
                    f"{place}: seed {pair[1]} of warm start {pair[0][:12]} is in another comparison as well"
                )
            outcomes[run["method"]][pair] = _outcome(run, place)
    for method, found in outcomes.items():
        if set(found) != set(outcomes[first["baseline"]]):
            raise UserError(f"{method} lacks runs that {first['baseline']} has: finish the comparison first")
    return Pool(tuple(outcomes), _panel(first), _iterations(first), outcomes)


def _read(place: Path) -> dict[str, Any]:
    path = place / RECORD_FILE if place.is_dir() else place
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = len(record["runs"]) == len(record["methods"]) * len(record["seeds"]) > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the record of a comparison: {error}") from None
    if not whole:
        raise UserError(f"{path}: some runs are not finished; the command that made it tries them again")
    return record


def _methods(record: Mapping[str, Any]) -> list[str]:
    return list(record["methods"])


# Within a comparison all runs have the same panel and length: others are refused when it is made.
def _panel(record: Mapping[str, Any]) -> str:
    return str(record["runs"][0]["panel"])


def _iterations(record: Mapping[str, Any]) -> int | None:
    iterations = record["runs"][0]["iterations"]
    return None if iterations is None else int(iterations)


def _outcome(run: Mapping[str, Any], place: Path) -> Outcome:
    rates = {name: figure["success_rate"] for name, figure in run["figures"].items()}
    if BEFORE not in rates or AFTER not in rates:
        raise UserError(f"{place}: {run['method']} with seed {run['seed']} was not evaluated before and after training")
    return Outcome(rates[BEFORE], rates[AFTER], rates.get(AFTER + WITH_SKILLS), run["seconds"])


def report(pool: Pool) -> str:
    """The tables, in Markdown that is also readable as it stands. Rates in per cent, differences in points."""
    starts = len(pool.warm_starts)
    parts = [
        f"{len(pool.pairs)} pairs from {starts} warm start{'s' if starts > 1 else ''}: success of the student alone "
        f"after training, its rise, and its difference to {pool.methods[0]} pair by pair, each with Student's 95 % "
        "interval; detectable: the true difference that this many pairs show with a probability of 80 %; minutes of "
        f"wall-clock time for training\n\n{_over_pairs(pool)}"
    ]
    if starts > 1:
        parts.append(f"Difference to {pool.methods[0]} by warm start, mean of its pairs\n\n{_by_warm_start(pool)}")
        parts.append(
            "Pairs of one warm start have that in common; the intervals take no account of it. Read the second table "
            "for whether the warm starts agree.\n"
        )
    parts.append(f"Panel {pool.panel[:12]}, {pool.iterations} iterations.\n")
    return "\n".join(parts)


def _over_pairs(pool: Pool) -> str:
    table = Table(box=box.MARKDOWN)
    table.add_column("method", no_wrap=True)
    for heading in ("after", "t", "rise", "t", "difference", "t", "detectable", "with skills", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method, outcomes in pool.outcomes.items():
        runs = list(outcomes.values())
        after = mean_over_runs([run.after for run in runs])
        rise = paired_difference([run.after for run in runs], [run.before for run in runs])
        cells = [*_cells(after), *_cells(rise, "+")]
        if method == pool.methods[0]:
            cells += ["", "", ""]
        else:
            differences = pool.differences(method)
            deviation = standard_deviation(differences)
            detectable = detectable_difference(deviation, len(differences)) if deviation > 0 else math.inf
            cells += [*_cells(mean_over_runs(differences), "+"), points(detectable)]
        cells += [_mean([run.after_with_skills for run in runs], 100), _mean([run.seconds for run in runs], 1 / 60)]
        table.add_row(method, *cells)
    return as_text(table)


def _by_warm_start(pool: Pool) -> str:
    table = Table(box=box.MARKDOWN)
    table.add_column("method", no_wrap=True)
    for warm_start in pool.warm_starts:
        count = sum(warm_start == start for start, _ in pool.pairs)
        table.add_column(f"{warm_start[:12]}, n = {count}", justify="right", no_wrap=True)
    for method in pool.methods[1:]:
        means = [mean_over_runs(pool.differences(method, warm_start)).mean for warm_start in pool.warm_starts]
        table.add_row(method, *(f"{100 * mean:+.1f}" for mean in means))
    return as_text(table)


def _cells(estimate: Estimate, sign: str = "") -> list[str]:
    return [format(100 * estimate.mean, f"{sign}.1f"), span(estimate.interval, sign)]


def _mean(values: Sequence[float | None], factor: float) -> str:
    known = [value for value in values if value is not None]
    return f"{factor * math.fsum(known) / len(known):.1f}" if len(known) == len(values) else "-"


def _check_drawing(name: str) -> None:
    if not name.endswith((".png", ".svg", ".pdf")):
        raise UserError(f"{PICTURE}={name}: allowed is a file that ends in .png, .svg or .pdf")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(f"{PICTURE} needs matplotlib; allowed is pip install 'sdar[plot]'") from None


def draw(pool: Pool, path: Path) -> None:
    """One line per method: every pair's difference to the baseline as a dot, their mean and its 95 % interval."""
    from matplotlib.figure import Figure

    others = pool.methods[1:]
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(others)), layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(pool.warm_starts, "os^DvP" * len(pool.warm_starts), strict=False))
    for line, method in enumerate(reversed(others)):
        for warm_start, marker in markers.items():
            differences = [100 * value for value in pool.differences(method, warm_start)]
            axes.plot(differences, [line] * len(differences), marker, ms=4, mfc="none", color="tab:gray")
        estimate = mean_over_runs(pool.differences(method))
        if math.isfinite(estimate.interval.low):
            axes.plot([100 * end for end in estimate.interval], [line, line], color="tab:blue", lw=2)
        axes.plot(100 * estimate.mean, line, "D", color="tab:blue", ms=6)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(others)), [method.rpartition("/")[2] for method in reversed(others)])
    axes.set_xlabel(
        f"success after training minus {pool.methods[0].rpartition('/')[2]}, points\n"
        f"dots: {len(pool.pairs)} pairs; bar: mean and 95 % interval (Student's t)"
    )
    axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
