"""The course of one run: curves, evaluations, costs and results by task type, each checked before it is believed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdar.compare.records import FinishedRun
from sdar.compare.reporting.events import Scalars, read_scalars
from sdar.compare.shape import is_count, is_path, mapping_of, record_of
from sdar.run.folder import LAST, LAST_OR_NEW, RUN_FILE, read_record

ALONE, WITH_SKILLS = "val", "val_with_skills"
"""The panel's evaluations during training, as ``results.json`` and tags name them."""

PARTS = {
    "generate": "time/generate_s",
    "environment": "time/environment_s",
    "score": "time/score_s",
    "update": "time/update_s",
    "evaluation": "time/evaluation_s",
}
"""Part of an iteration -> its tag, in seconds."""

_SPEED = "throughput/tokens_per_s"
_SPEED_IS_OVER = [PARTS[part] for part in ("generate", "environment", "score", "update")]
_WANTED = (
    *("val/success_rate", "val_with_skills/success_rate", "rollout/", "curriculum/", "train/grad_norm"),
    *("time/", "throughput/", "cost/"),
)
FED = {
    "playing": "cost/tokens_played",
    "scoring": "cost/tokens_scored",
    "teacher": "cost/tokens_teacher",
    "learning": "cost/tokens_learned",
}
"""What tokens went through a model for -> its tag, in tokens of an iteration."""
_FLOPS = "cost/flops"
_TURN = re.compile(r"curriculum/by_turn/gap_mean/(\d{1,6})(\+?)")
_MOST_PARTS = 20
"""Of a run that was stopped and continued; a chain of records may be a circle."""

_BY_TYPE = mapping_of(record_of(n=is_count, successes=is_count))

Curve = Mapping[int, float]
"""Iteration -> value."""
Counts = tuple[int, int]
"""Solved tasks, and tasks without errors."""


@dataclass(frozen=True)
class History:
    """What a run left of its course.

    ``scalars``  tag -> curve, of the run and of those that it continued
    ``rates``    ``val`` and ``val_with_skills`` -> success rate in [0, 1] by iterations learned from
    ``by_type``  row of the final table -> task type -> counts
    ``damage``   what could not be read, in clauses
    """

    scalars: Mapping[str, Curve] = field(default_factory=dict)
    rates: Mapping[str, Curve] = field(default_factory=dict)
    by_type: Mapping[str, Mapping[str, Counts]] = field(default_factory=dict)
    damage: tuple[str, ...] = ()

    def curve(self, tag: str) -> Curve:
        """A tag's curve; empty where the run has none."""
        return self.scalars.get(tag, {})

    @property
    def seconds(self) -> dict[str, float]:
        """Part -> seconds over all iterations whose figures are there. Parts without any are left out."""
        return {part: math.fsum(curve.values()) for part, tag in PARTS.items() if (curve := self.curve(tag))}

    @property
    def tokens(self) -> float | None:
        """Sampled tokens of all iterations: tokens per second, times the seconds that it is over. None: not known."""
        steps = [step for step in self.curve(_SPEED) if all(step in self.curve(tag) for tag in _SPEED_IS_OVER)]
        if not steps:
            return None
        speed = self.curve(_SPEED)
        return math.fsum(speed[step] * math.fsum(self.curve(tag)[step] for tag in _SPEED_IS_OVER) for step in steps)

    @property
    def fed(self) -> dict[str, float]:
        """What for -> tokens that went through a model, over all iterations. Parts without any figure are left out."""
        return {part: math.fsum(curve.values()) for part, tag in FED.items() if (curve := self.curve(tag))}

    @property
    def flops(self) -> float | None:
        """Estimated floating-point operations of all iterations. None: not known."""
        curve = self.curve(_FLOPS)
        return math.fsum(curve.values()) if curve else None

    @property
    def iterations(self) -> int:
        """Of how many iterations the costs are known."""
        return len(self.curve(PARTS["update"]))

    @property
    def internalisation(self) -> Curve:
        """Success without minus with skills in the prompt, where the panel was played both ways; in [-1, 1]."""
        alone, helped = self.rates.get(ALONE, {}), self.rates.get(WITH_SKILLS, {})
        return {step: alone[step] - helped[step] for step in alone if step in helped}

    @property
    def gap_by_turn(self) -> dict[str, Curve]:
        """Turn, as the tags name it ("0", "8+") -> the curve of its mean gap."""
        found = {match: curve for tag, curve in self.scalars.items() if (match := _TURN.fullmatch(tag))}
        return {f"{int(turn[1])}{turn[2]}": found[turn] for turn in sorted(found, key=lambda turn: int(turn[1]))}

    def mean_of(self, tag: str) -> float | None:
        """Mean of a tag over all iterations that have it. None: none has."""
        curve = self.curve(tag)
        return math.fsum(curve.values()) / len(curve) if curve else None


def read_history(run: FinishedRun) -> History:
    """Read the course of a run. What is missing or damaged is left out."""
    scalars, damage = _scalars(run)
    rates: dict[str, Curve] = {}
    for name in (ALONE, WITH_SKILLS):
        rates[name] = _rates(run.results, name) or scalars.pop(f"{name}/success_rate", {})
    by_type = {
        row["name"]: {name: (counts["successes"], counts["n"]) for name, counts in row["by_type"].items()}
        for row in run.results["results"]
        if _BY_TYPE(row.get("by_type"))
    }
    return History(scalars, rates, by_type, tuple(damage))


def _rates(results: Mapping[str, Any], name: str) -> dict[int, float]:
    rows = [row for row in results.get("evaluations") or () if row["name"] == name and row["n"]]
    return {row["iterations"]: row["successes"] / row["n"] for row in rows if is_count(row.get("iterations"))}


def _scalars(run: FinishedRun) -> tuple[Scalars, list[str]]:
    """Those of a run and, for iterations that it lacks, of the runs that it continued."""
    found: Scalars = {}
    damage: list[str] = []
    folder, record = run.folder, run.record
    first = math.inf  # of the part that continued this one, which may have gone further
    for _ in range(_MOST_PARTS):
        scalars, told = read_scalars(folder / "tensorboard", _WANTED)
        damage += told
        for tag, curve in scalars.items():
            found[tag] = {step: value for step, value in curve.items() if step <= first} | found.get(tag, {})
        first = min([first, *(step for curve in scalars.values() for step in curve)])
        checkpoint = record.get("resumed_from")
        if not is_path(checkpoint) or checkpoint in (LAST, LAST_OR_NEW):
            break
        earlier = Path(str(checkpoint)).parent.parent
        known = read_record(earlier / RUN_FILE)
        if known is None:
            damage.append(f"{earlier}, which the run continued, is gone or damaged")
            break
        folder, record = earlier, known
    return {tag: dict(sorted(curve.items())) for tag, curve in found.items()}, damage
