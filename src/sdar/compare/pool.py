"""``python -m sdar.compare.pool``: several comparisons of the same methods in one table, and in a picture.

A comparison has one warm start. In a pool of comparisons, every pair (same warm start, same seed, same tasks) counts
once, and the interval is about other pairs of this kind.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar.compare.app import RECORD_FILE
from sdar.compare.comparison import Sample
from sdar.compare.records import AFTER, BEFORE, WITH_SKILLS
from sdar.compare.report import markdown_table, mean_and_span, points
from sdar.compare.shape import is_count, is_number, is_text, list_of, mapping_of, maybe, record_of
from sdar.errors import USER_ERROR, UserError, command, run_command
from sdar.run.folder import read_record

PICTURE = "picture"

_HELP = f"""\
usage: python -m sdar.compare.pool COMPARISON [COMPARISON ...] [{PICTURE}=FILE.png]

COMPARISON is a folder written by sdar compare (or its {RECORD_FILE}). All comparisons must have the same methods in the
same order, the same panel and the same number of iterations. Warm starts and seeds may differ. {PICTURE} needs the
extra sdar[plot]. What the table means: docs/comparing.md
"""

_RUN = record_of(
    method=is_text,
    seed=is_count,
    initial_weights=is_text,
    panel=is_text,
    iterations=maybe(is_count),
    seconds=maybe(is_number),
    figures=mapping_of(record_of(success_rate=lambda rate: is_number(rate) and rate <= 1)),
)
_COMPARISON = record_of(methods=list_of(is_text), seeds=list_of(is_count), runs=list_of(_RUN))
"""What a pool reads of a comparison."""

Pair = tuple[str, int]
"""Hash of the warm start, and the seed."""


@dataclass(frozen=True)
class Outcome:
    """One run: success rates of the student in [0, 1], and ``seconds`` of wall-clock time for training."""

    before: float
    after: float
    after_with_skills: float | None
    seconds: float | None


@dataclass(frozen=True)
class Pool:
    """The runs of all comparisons. The first method is the baseline. Every method has every pair."""

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

    def differences(self, method: str, warm_start: str | None = None) -> Sample:
        """After training, method minus baseline, pair by pair, for one warm start or for all."""
        ours, base = self.outcomes[method], self.outcomes[self.methods[0]]
        pairs = [pair for pair in self.pairs if warm_start in (None, pair[0])]
        return Sample(tuple(ours[pair].after - base[pair].after for pair in pairs))


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
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
    """Read comparisons. UserError: one cannot be read or lacks runs, or they cannot be pooled."""
    if not places:
        raise UserError("COMPARISON must be one or more folders written by sdar compare, got none")
    records = {place: _read(place) for place in places}
    (first_place, first), *others = ((place, _kind(record)) for place, record in records.items())
    for place, kind in others:
        for name, value in kind.items():
            if value != first[name]:
                raise UserError(
                    f"{place} has another {name} than {first_place}, {value} instead of {first[name]}; pooled "
                    "comparisons must have the same"
                )
    methods = first["list of methods"]
    outcomes: dict[str, dict[Pair, Outcome]] = {method: {} for method in methods}
    for place, record in records.items():
        for run in record["runs"]:
            warm_start, seed = pair = (str(run["initial_weights"]), int(run["seed"]))
            if pair in outcomes[run["method"]]:
                raise UserError(
                    f"{place}: seed {seed} of warm start {warm_start[:12]} is in another comparison as well"
                )
            outcomes[run["method"]][pair] = _outcome(run, place)
    for method, found in outcomes.items():
        if set(found) != set(outcomes[methods[0]]):
            raise UserError(f"{method} lacks runs that {methods[0]} has; finish the comparison first")
    return Pool(tuple(methods), str(first["panel"]), first["number of iterations"], outcomes)


def _read(place: Path) -> dict[str, Any]:
    path = place / RECORD_FILE if place.is_dir() else place
    record = read_record(path)
    if (
        record is None
        or not _COMPARISON(record)
        or any(run["method"] not in record["methods"] for run in record["runs"])
    ):
        raise UserError(f"{path} is not the record of a comparison, or cannot be read")
    if not len(record["runs"]) == len(record["methods"]) * len(record["seeds"]) > 0:
        raise UserError(f"{path}: some runs are not finished; the command that wrote it tries them again")
    return record


def _kind(record: Mapping[str, Any]) -> dict[str, Any]:
    """What pooled comparisons must share. All runs of one comparison have the same panel and length."""
    run = record["runs"][0]
    return {"list of methods": record["methods"], "panel": run["panel"], "number of iterations": run.get("iterations")}


def _outcome(run: Mapping[str, Any], place: Path) -> Outcome:
    rates = {name: figure["success_rate"] for name, figure in run["figures"].items()}
    if BEFORE not in rates or AFTER not in rates:
        raise UserError(f"{place}: {run['method']} with seed {run['seed']} was not evaluated before and after training")
    return Outcome(rates[BEFORE], rates[AFTER], rates.get(AFTER + WITH_SKILLS), run.get("seconds"))


def report(pool: Pool) -> str:
    """The tables in Markdown. Rates are in per cent, differences in points."""
    starts = len(pool.warm_starts)
    over_pairs = markdown_table(
        ["method"],
        ["after", "t", "rise", "t", "difference", "t", "detectable", "with skills", "minutes"],
        (_row(pool, method) for method in pool.methods),
    )
    parts = [
        f"{len(pool.pairs)} pairs from {starts} warm start{'s' if starts > 1 else ''}: success of the student alone "
        f"after training, its rise, and its difference to {pool.methods[0]} pair by pair, each with Student's 95 % "
        "interval; detectable: the true difference that this many pairs show with a probability of 80 %; minutes of "
        f"wall-clock time for training\n\n{over_pairs}"
    ]
    if starts > 1:
        counts = {start: sum(start == other for other, _ in pool.pairs) for start in pool.warm_starts}
        by_warm_start = markdown_table(
            ["method"],
            [f"{start[:12]}, n = {count}" for start, count in counts.items()],
            (
                [method, *(f"{100 * pool.differences(method, start).student.mean:+.1f}" for start in counts)]
                for method in pool.methods[1:]
            ),
        )
        parts += [
            f"Difference to {pool.methods[0]} by warm start, mean of its pairs\n\n{by_warm_start}",
            "Pairs of one warm start have that in common; the intervals take no account of it. Read the second table "
            "for whether the warm starts agree.\n",
        ]
    parts.append(f"Panel {pool.panel[:12]}, {pool.iterations} iterations.\n")
    return "\n".join(parts)


def _row(pool: Pool, method: str) -> list[str]:
    runs = list(pool.outcomes[method].values())
    after, rise = Sample(tuple(run.after for run in runs)), Sample(tuple(run.after - run.before for run in runs))
    difference = ["", "", ""]
    if method != pool.methods[0]:
        found = pool.differences(method)
        difference = [*mean_and_span(found.student, "+"), points(found.detectable)]
    means = (_mean([run.after_with_skills for run in runs], 100), _mean([run.seconds for run in runs], 1 / 60))
    return [method, *mean_and_span(after.student), *mean_and_span(rise.student, "+"), *difference, *means]


def _mean(values: Sequence[float | None], factor: float) -> str:
    known = [value for value in values if value is not None]
    return f"{factor * math.fsum(known) / len(known):.1f}" if len(known) == len(values) else "-"


def _check_drawing(name: str) -> None:
    if not name.endswith((".png", ".svg", ".pdf")):
        raise UserError(f"{PICTURE} must be a file that ends in .png, .svg or .pdf, got {name}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"{PICTURE} needs matplotlib: pip install 'sdar[plot]'")


def draw(pool: Pool, path: Path) -> None:
    """One line per method: a dot per pair for its difference to the baseline, their mean and its 95 % interval."""
    from matplotlib.figure import Figure

    others = pool.methods[1:]
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(others)), layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(pool.warm_starts, "os^DvP" * len(pool.warm_starts), strict=False))
    for line, method in enumerate(reversed(others)):
        for warm_start, marker in markers.items():
            differences = [100 * value for value in pool.differences(method, warm_start).values]
            axes.plot(differences, [line] * len(differences), marker, ms=4, mfc="none", color="tab:gray")
        estimate = pool.differences(method).student
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
    run_command(main)
