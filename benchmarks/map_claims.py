"""Statements about the map, fixed in ``map.yaml`` before their seeds are played, and what the runs say to each.

A statement compares a figure of the runs of a cell with that of another cell of the same regime, pair by pair, or with
0, and says which sign is expected; or it compares such a difference with the same one of another regime. It is
*supported* where the mean has that sign and p, corrected by Holm over all statements of the series, is below 0.05;
*contradicted* where it has the other sign and p is below 0.05; else *undecided* at this number of seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from map_cells import Outcome

from sdar.evaluation.statistics import bootstrap_mean, holm, mean_over_runs, p_value

LEVEL = 0.05
MARGIN = 5.0
"""Points that a difference may be below 0 where ``not_below`` is expected."""


@dataclass(frozen=True)
class Statement:
    """A statement of ``map.yaml`` in one of its regimes.

    ``says``      the statement, as the table has it
    ``regime``    where
    ``of``        method and coefficient, ``sdar 0.1``
    ``against``   the same of what it is compared with; None: with 0
    ``figure``    ``alone``, ``with_skills`` (success after training, per cent), ``lost_alone`` (the second less the
                  first), or the tag of a curve: its last iterations less its first, in hundredths
    ``expected``  ``above``, ``below``, or ``not_below``: above -5 points
    ``than``      the regime whose difference on the same seed is taken away; None: none
    """

    says: str
    regime: str
    of: str
    against: str | None = None
    figure: str = "alone"
    expected: str = "above"
    than: str | None = None

    def differences(self, outcomes: Sequence[Outcome]) -> list[float]:
        """One per seed that all cells have, seeds in order."""
        here = self._by_seed(outcomes, self.regime)
        if self.than is None:
            return [here[seed] for seed in sorted(here)]
        there = self._by_seed(outcomes, self.than)
        return [here[seed] - there[seed] for seed in sorted(here.keys() & there.keys())]

    def _by_seed(self, outcomes: Sequence[Outcome], regime: str) -> dict[int, float]:
        figure = _figure(self.figure)
        own = {seed: figure(outcome) for seed, outcome in _by_seed(outcomes, regime, self.of).items()}
        if self.against is None:
            return own
        other = _by_seed(outcomes, regime, self.against)
        return {seed: value - figure(other[seed]) for seed, value in own.items() if seed in other}

    @property
    def shift(self) -> float:
        """What is added to the differences before they are tested against 0."""
        return MARGIN if self.expected == "not_below" else 0.0

    @property
    def sign(self) -> int:
        """Of the mean, where the statement holds."""
        if self.expected not in ("above", "below", "not_below"):
            raise ValueError(f"expected must be above, below or not_below, got {self.expected!r}")
        return -1 if self.expected == "below" else 1


def statements(series: Mapping[str, Any]) -> list[Statement]:
    """Those of a series of ``map.yaml``, each once per regime."""
    return [
        Statement(regime=regime, of=cells[0], against=cells[1] if len(cells) > 1 else None, **others)
        for line in series.get("statements", ())
        for others in [{name: value for name, value in line.items() if name != "compared"}]
        for regime, cells in line["compared"].items()
    ]


def judged(planned: Sequence[Statement], outcomes: Sequence[Outcome], pairs: int) -> str:
    """Markdown: a row per statement, with both intervals, the corrected p and the verdict.

    A statement of which not all ``pairs`` have been played is not judged yet, whatever the first ones say.
    """
    found = [(s, s.differences(outcomes)) for s in planned]
    # Those whose runs are still to come count, so that their coming strengthens no other.
    corrected = holm(
        [p_value([value + s.shift for value in values] if len(values) == pairs else []) for s, values in found]
    )
    lines = [
        "| statement | regime | compared | pairs | difference, points | 95 %, Student's t | 95 %, bootstrap | p (Holm) "
        "| verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (s, values), p in zip(found, corrected, strict=True):
        if not values:
            continue
        estimate = mean_over_runs(values)
        spans = ["one pair"] * 2
        if estimate.n > 1:
            spans = [f"{low:+.1f} to {high:+.1f}" for low, high in (estimate.interval, bootstrap_mean(values).interval)]
        compared = f"{s.of} - {s.against}" if s.against else s.of
        compared += "" if s.figure == "alone" else f", {s.figure.rpartition('/')[2].replace('_', ' ')}"
        compared += "" if s.than is None else f", minus that of {s.than}"
        words = [s.says, s.regime, compared, str(estimate.n), f"{estimate.mean:+.1f}", *spans]
        said = [f"{p:.2g}", verdict(s, estimate.mean, p)] if estimate.n == pairs else ["", f"{pairs} pairs are planned"]
        lines.append(f"| {' | '.join([*words, *said])} |")
    return "\n".join(lines)


def verdict(statement: Statement, mean: float, p: float) -> str:
    """In a word or two. ``p`` is corrected, and that of the shifted differences."""
    if p >= LEVEL:
        return "undecided"
    return "**supported**" if (mean + statement.shift) * statement.sign > 0 else "**contradicted**"


def _by_seed(outcomes: Sequence[Outcome], regime: str, words: str) -> dict[int, Outcome]:
    method, _, strength = words.partition(" ")
    key = (regime, method, float(strength) if strength else None)
    return {o.cell.seed: o for o in outcomes if (o.cell.regime, o.cell.method, o.cell.coefficient) == key}


def _figure(name: str) -> Callable[[Outcome], float]:
    def skilled(outcome: Outcome) -> float:
        assert outcome.after_with_skills is not None
        return 100 * outcome.after_with_skills

    def alone(outcome: Outcome) -> float:
        return 100 * outcome.after

    def rise(outcome: Outcome) -> float:
        first, last, _ = outcome.curves[name]
        return 100 * (last - first)

    if "/" in name:
        return rise
    return {"alone": alone, "with_skills": skilled, "lost_alone": lambda o: skilled(o) - alone(o)}[name]
