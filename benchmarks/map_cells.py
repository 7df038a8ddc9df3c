"""What the map of self-distillation consists of: its plan (``map.yaml``), its cells, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "data"
PLAN = yaml.safe_load(Path(__file__).with_name("map.yaml").read_text(encoding="utf-8"))
BASELINE = "grpo"
WARM_STARTS = "warm_starts"
SPAN = 10
"""Iterations at the beginning and at the end of a run over which a curve is averaged."""


@dataclass(frozen=True)
class Cell:
    """A method with a coefficient (None: it has none) in a regime, on one seed."""

    regime: str
    method: str
    coefficient: float | None
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder."""
        strength = "" if self.coefficient is None else f"-{self.coefficient:g}"
        return f"{self.regime}-{self.method}{strength}-seed{self.seed}"

    @property
    def warm_start(self) -> str | None:
        """Name of the model that the regime starts from, where it is not a shipped one."""
        regime = PLAN["regimes"].get(self.regime)
        return None if regime is None else str(regime["warm_start"])

    def overrides(self, out: Path) -> list[str]:
        """Of ``train.py``; ``out`` has the warm starts that are not shipped."""
        experiment = self.regime if self.warm_start is None else PLAN["regimes"][self.regime]["experiment"]
        method = PLAN["methods"][self.method]
        if self.coefficient is not None:
            place = method if "COEFFICIENT" in method else f"{method} {PLAN['coefficient']}=COEFFICIENT"
            method = place.replace("COEFFICIENT", f"{self.coefficient:g}")
        words = [f"experiment=map/{experiment}", *method.split(), f"seed={self.seed}"]
        return words if self.warm_start is None else [*words, f"model.path={out / WARM_STARTS / self.warm_start}"]

    def command(self, out: Path) -> list[str]:
        """The words after ``train.py`` that play it into its folder in ``out``."""
        return [*self.overrides(out), f"run_dir={out / self.name}", "threads=1"]


def cells(series: str) -> list[Cell]:
    """All cells of a series, seed by seed within each block, so that whole pairs are there early."""
    chosen = PLAN["series"][series]
    return [
        Cell(regime, method, coefficient, seed)
        for block in chosen["cells"]
        for seed in chosen["seeds"]
        for regime in block["regimes"]
        for method, coefficients in block["methods"].items()
        for coefficient in coefficients
    ]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell. Success rates in [0, 1] over the panel of ``n`` tasks.

    ``seconds`` are those of training, and mean little where other work went on; ``cpu_seconds`` are those of the whole
    run, panels included, 0 where they were not counted.

    ``curves`` has the first, the last and the highest mean over :data:`SPAN` iterations of each of :data:`CURVES` that
    the run has.

    ``tokens`` went through a model in training, panels left out, each pass counted: those ``played``, ``scored``, read
    by the ``teacher`` and ``learned`` from, which do not overlap. None: they were not counted.

    ``success_curve`` has the success rate of each iteration's rollouts; it is empty where it was not kept.
    """

    cell: Cell
    before: float
    before_with_skills: float | None
    after: float
    after_with_skills: float | None
    n: int
    revision: str
    seconds: float
    cpu_seconds: float = 0.0
    curves: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, int] | None = None
    success_curve: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the cell."""
        return self.cell.name

    @property
    def whole(self) -> bool:
        """Whether it has its costs and its curve."""
        return bool(self.cpu_seconds and self.tokens and self.success_curve)

    def completed(self, other: Outcome | None) -> Outcome:
        """With the costs and the curve that it lacks, if ``other`` is of the same run: same revision, same panels."""
        if other is None or self._panels() != other._panels():
            return self
        return replace(
            self,
            cpu_seconds=self.cpu_seconds or other.cpu_seconds,
            tokens=self.tokens or other.tokens,
            success_curve=self.success_curve or other.success_curve,
        )

    def row(self) -> dict[str, Any]:
        """As the series' file has it: what only later records have is not in earlier ones, which stay as they are."""
        figures = {name: value for name, value in vars(self).items() if name != "cell"}
        return {
            **vars(self.cell),
            **{name: value for name, value in figures.items() if value or name not in ("tokens", "success_curve")},
        }

    def _panels(self) -> tuple[Cell, str, int, list[float | None]]:
        rates = [self.before, self.before_with_skills, self.after, self.after_with_skills]
        return self.cell, self.revision, self.n, rates


def file_of(series: str) -> Path:
    """Where a series' outcomes are kept."""
    return DATA / f"map_{series}.json"


def read(series: str) -> list[Outcome]:
    """The cells of a series' file; [] where there is none."""
    if not file_of(series).exists():
        return []
    keys = ("regime", "method", "coefficient", "seed")
    rows = json.loads(file_of(series).read_text(encoding="utf-8"))
    return [
        Outcome(Cell(**{key: row[key] for key in keys}), **{k: v for k, v in row.items() if k not in keys})
        for row in rows
    ]


def read_all() -> Iterator[Outcome]:
    """Of all series."""
    for series in PLAN["series"]:
        yield from read(series)
