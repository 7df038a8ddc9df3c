"""The result of an evaluation: one record per task, exact counts, n and an interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sdar.episode import EndReason, Episode
from sdar.evaluation.statistics import Interval, wilson_interval


@dataclass(frozen=True)
class TaskRecord:
    """The outcome of one task, small and without tokens, so that processes can exchange it."""

    task_id: str
    task_type: str
    success: bool
    end: EndReason
    num_turns: int
    episode_return: float
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)

    def to_dict(self) -> list[Any]:
        """As plain values, for a checkpoint."""
        start = [self.task_id, self.task_type, self.success, self.end.value, self.num_turns, self.episode_return]
        return [*start, dict(self.scores)]

    @classmethod
    def from_dict(cls, values: Sequence[Any]) -> TaskRecord:
        """The record of :meth:`to_dict`; without scores if an earlier version wrote it."""
        task_id, task_type, success, end, *others = values
        return cls(task_id, task_type, success, EndReason(end), *others)


@dataclass(frozen=True)
class EvaluationResult:
    """One pass over a panel.

    ``n`` counts the episodes that ended validly. Those that ended by an error (``errors``) are not failures: every
    metric excludes them, and they are reported separately. Rates are in [0, 1], NaN if n is 0. ``episodes`` may be
    empty if the records were gathered from several processes. ``recorded``: they are those of an earlier pass.
    """

    name: str
    records: tuple[TaskRecord, ...]
    panel_hash: str = ""
    episodes: tuple[Episode, ...] = field(default=(), compare=False, repr=False)
    recorded: bool = field(default=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint; without the episodes."""
        return {"name": self.name, "panel": self.panel_hash, "records": [record.to_dict() for record in self.records]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationResult:
        """The result of :meth:`to_dict`."""
        records = tuple(TaskRecord.from_dict(record) for record in values["records"])
        return cls(values["name"], records, values["panel"])

    def named(self, name: str) -> EvaluationResult:
        """The same result under another name: a row of the report is named after the agent, not after the key."""
        return replace(self, name=name)

    @cached_property
    def valid(self) -> tuple[TaskRecord, ...]:
        """Records of the episodes that count."""
        return tuple(record for record in self.records if not record.end.is_error)

    @property
    def n(self) -> int:
        """Number of episodes that count."""
        return len(self.valid)

    @property
    def errors(self) -> int:
        """Number of episodes that ended by an error, excluded from ``n``."""
        return len(self.records) - self.n

    @property
    def successes(self) -> int:
        """Number of solved tasks."""
        return sum(record.success for record in self.valid)

    @property
    def success_rate(self) -> float:
        """Solved tasks over ``n``, in [0, 1]; NaN without an episode."""
        return self.successes / self.n if self.n else math.nan

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of the success rate."""
        return wilson_interval(self.successes, self.n)

    @cached_property
    def by_type(self) -> dict[str, tuple[int, int]]:
        """(n, successes) of each task type that has a valid episode, types sorted."""
        played = Counter(record.task_type for record in self.valid)
        solved = Counter(record.task_type for record in self.valid if record.success)
        return {name: (played[name], solved[name]) for name in sorted(played)}

    @property
    def macro_success_rate(self) -> float:
        """Unweighted mean of the task types' success rates, in [0, 1]; NaN without an episode."""
        return _mean([solved / n for n, solved in self.by_type.values()])

    @cached_property
    def scores(self) -> dict[str, float]:
        """Mean of each named score over the valid episodes, in [0, 1], names sorted; empty without scores.

        An episode that ended before the environment scored it counts as 0, like one without success.
        """
        return self._mean_scores(self.valid)

    @cached_property
    def scores_by_type(self) -> dict[str, dict[str, float]]:
        """The same for each task type that has a valid episode, types sorted."""
        of_type = {kind: [record for record in self.valid if record.task_type == kind] for kind in self.by_type}
        return {kind: self._mean_scores(records) for kind, records in of_type.items()}

    def _mean_scores(self, records: Sequence[TaskRecord]) -> dict[str, float]:
        names = sorted({name for record in self.valid for name in record.scores})
        return {name: _mean([record.scores.get(name, 0.0) for record in records]) for name in names}

    @cached_property
    def ends(self) -> dict[EndReason, int]:
        """Number of episodes of each end reason that occurred, errors included."""
        counts = Counter(record.end for record in self.records)
        return {reason: counts[reason] for reason in EndReason if counts[reason]}

    @property
    def turns_mean(self) -> float:
        """Mean number of turns of the valid episodes; NaN without one."""
        return _mean([record.num_turns for record in self.valid])

    def metrics(self, prefix: str) -> dict[str, float]:
        """Success rates and named scores; {} without an episode.

        ``<prefix>/success_rate`` over all tasks, ``<prefix>/success_rate/<task_type>``, ``<prefix>/score/<name>`` and,
        with several task types, ``<prefix>/macro_success_rate``.
        """
        if not self.n:
            return {}
        rates = {f"{prefix}/success_rate/{name}": solved / n for name, (n, solved) in self.by_type.items()}
        if len(rates) > 1:
            rates[f"{prefix}/macro_success_rate"] = self.macro_success_rate
        scores = {f"{prefix}/score/{name}": mean for name, mean in self.scores.items()}
        return {f"{prefix}/success_rate": self.success_rate, **rates, **scores}

    def line(self) -> str:
        """One readable line: rate, count, interval, errors."""
        low, high = self.interval
        rate = f"{self.success_rate:.1%}" if self.n else "no valid episode"
        errors = f", {self.errors} ended by an error and left out" if self.errors else ""
        return f"{self.name}: {rate} ({self.successes} of {self.n}; 95 % interval {low:.1%} to {high:.1%}){errors}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def summarise(name: str, episodes: Sequence[Episode], panel_hash: str = "") -> EvaluationResult:
    """The result of finished episodes, one per task of a panel."""
    records = tuple(
        TaskRecord(e.task.task_id, e.task.task_type, e.success, e.end, len(e.turns), e.episode_return, dict(e.scores))
        for e in episodes
    )
    return EvaluationResult(name, records, panel_hash, tuple(episodes))


def merge(results: Sequence[EvaluationResult]) -> EvaluationResult:
    """The combined result of shares that several processes played of one panel; records sorted by task.

    Raises ValueError for shares of different names or panels, or for a task that occurs twice.
    """
    if len({(result.name, result.panel_hash) for result in results}) != 1:
        raise ValueError("results must be shares of one evaluation, with the same name and panel")
    records = sorted((record for result in results for record in result.records), key=lambda record: record.task_id)
    if len({record.task_id for record in records}) != len(records):
        raise ValueError("results must be disjoint: a task that occurs in two shares would be counted twice")
    episodes = tuple(episode for result in results for episode in result.episodes)
    return replace(results[0], records=tuple(records), episodes=episodes)
