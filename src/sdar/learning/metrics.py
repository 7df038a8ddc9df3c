"""The metrics of an iteration: counts and sums over all of it, over all ranks, and only then divided.

Nothing here is a mean of batch means, and nothing is the value of the last micro-batch. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sdar.episode import EndReason, Episode
from sdar.learning.prepare import Prepared
from sdar.learning.update import StepReport
from sdar.objective.advantage import equal_groups
from sdar.objective.gate import Gate
from sdar.objective.tokens import DistillationTokens
from sdar.rollout.dynamic import SampledGroups

GAP_MARGIN_NATS = 0.01
"""Gaps within this distance of 0 are neutral: most tokens of a response are forced and have a gap of nearly 0."""

RESPONSE_TOKENS = "response_tokens"
"""Total of :class:`MetricSums` that :func:`iteration_metrics` needs: the sampled tokens that are learned from."""


class MetricSums(Metric):
    """Named sums that become means, standard deviations, totals and maxima when computed, over all ranks.

    Every rank must add to the same names in the same order, with a count of 0 where it has nothing to count: the ranks'
    sums are added row by row.
    """

    full_state_update = False
    sums: Tensor
    peaks: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(0, 3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("peaks", torch.zeros(0, dtype=torch.float64), dist_reduce_fx="max")
        self._sum_rows: dict[str, int] = {}
        self._peak_rows: dict[str, int] = {}
        self._totals: set[str] = set()
        self._spreads: set[str] = set()

    def mean(self, name: str, total: float, count: float) -> None:
        """Add ``count`` observations whose sum is ``total`` to a mean."""
        self.update(name, total, count)

    def spread(self, name: str, squares: float) -> None:
        """Add to the sum of squares of a mean ``.../x_mean``, which gives ``.../x_std`` (over all, divided by n)."""
        self._spreads.add(name)
        self.update(name, squares=squares)

    def total(self, name: str, value: float) -> None:
        """Add to a sum that is not divided by anything."""
        self._totals.add(name)
        self.update(name, value)

    def maximum(self, name: str, value: float) -> None:
        """Note a value of which the largest counts; -inf where there is none."""
        self.update(name, peak=value)

    def update(
        self, name: str, total: float = 0.0, count: float = 0.0, squares: float = 0.0, peak: float | None = None
    ) -> None:
        """Add to the row of a name; see the methods above."""
        if peak is not None:
            row = self._peak_rows.setdefault(name, len(self._peak_rows))
            if row == len(self.peaks):
                self.peaks = torch.cat([self.peaks, self.peaks.new_full((1,), -math.inf)])
            self.peaks[row] = max(float(self.peaks[row]), peak)
            return
        row = self._sum_rows.setdefault(name, len(self._sum_rows))
        if row == len(self.sums):
            self.sums = torch.cat([self.sums, self.sums.new_zeros(1, 3)])
        self.sums[row] += torch.tensor([total, count, squares], dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """All metrics. A mean or a maximum of nothing is left out: it is not 0."""
        sums, peaks = self.sums.tolist(), self.peaks.tolist()
        metrics: dict[str, float] = {}
        for name, row in self._sum_rows.items():
            total, count, squares = sums[row]
            if name in self._totals:
                metrics[name] = total
            elif count > 0:
                metrics[name] = total / count
                if name in self._spreads:
                    variance = squares / count - metrics[name] ** 2
                    metrics[name.removesuffix("_mean") + "_std"] = math.sqrt(max(variance, 0.0))
        return metrics | {name: peaks[row] for name, row in self._peak_rows.items() if peaks[row] > -math.inf}


def add_rollout(sums: MetricSums, episodes: Sequence[Episode]) -> None:
    """Add the ``rollout/*`` figures that can be read off the episodes and their groups.

    ``rollout/end/*`` counts all episodes; everything else leaves out those an error ended, which are no attempts.
    """
    for reason in EndReason:
        sums.mean(f"rollout/end/{reason.value}", sum(e.end is reason for e in episodes), len(episodes))
    played = [episode for episode in episodes if not episode.end.is_error]
    turns = [turn for episode in played for turn in episode.turns]
    sums.mean("rollout/success_rate", sum(e.success for e in played), len(played))
    sums.mean("rollout/return_mean", math.fsum(e.episode_return for e in played), len(played))
    sums.mean("rollout/turns_mean", len(turns), len(played))
    sums.mean("rollout/valid_action_rate", sum(t.valid for t in turns), len(turns))
    sums.mean("rollout/response_tokens_mean", sum(len(t.response_ids) for t in turns), len(turns))
    sums.mean("rollout/response_truncated_fraction", sum(t.truncated for t in turns), len(turns))
    sums.mean("rollout/history_dropped_turns", sum(t.dropped_turns for t in turns), len(turns))
    sums.mean("rollout/equal_group_fraction", *equal_groups(episodes))


def add_sampling(sums: MetricSums, sampled: SampledGroups) -> None:
    """Add the counts of dynamic sampling: groups of all ranks."""
    sums.total("rollout/groups_played", sampled.played)
    sums.total("rollout/groups_replaced", len(sampled.replaced))
    sums.total("rollout/groups_skipped", sampled.skipped)


def add_scores(sums: MetricSums, prepared: Prepared, gate: Gate) -> None:
    """Add the figures of the rows and of theta_old's scores.

    ``rollout/context_tokens_max``, ``rollout/entropy`` and, where a teacher was scored, ``curriculum/*``; where it
    shaped advantages also ``objective/advantage_factor_mean`` and ``_std``, over tokens whose advantage is not 0.

    Args:
        sums: where to add.
        prepared: the iteration before its first update.
        gate: the iteration's gate; a token is strongly gated above its threshold (the paper's 0.5: gap > 0).
    """
    batch = prepared.batch
    mask = batch.response_mask
    count = int(mask.sum())
    sums.maximum("rollout/context_tokens_max", max((n for n in batch.lengths() if n), default=-math.inf))
    sums.mean("rollout/entropy", float(prepared.entropy[mask].double().sum()), count)
    if prepared.kl_charges is not None:
        sums.mean("rollout/kl_charge_mean", math.fsum(prepared.kl_charges), len(prepared.kl_charges))
    if prepared.teacher is None or batch.teacher_log_probs is None or batch.old_log_probs is None:
        return
    tokens = DistillationTokens(
        student=batch.old_log_probs[mask],
        teacher=batch.teacher_log_probs[mask],
        entropy=prepared.entropy[mask],
        max_entropy=prepared.max_entropy,
        advantage=batch.advantage[mask],
        turn=batch.turn_index[mask],
    )
    gaps, gates = tokens.gap, gate.value(tokens)
    endorsed = int((gaps > GAP_MARGIN_NATS).sum())
    rejected = int((gaps < -GAP_MARGIN_NATS).sum())
    sums.mean("curriculum/strongly_gated_fraction", int((gates > gate.threshold).sum()), count)
    sums.mean("curriculum/endorsed_fraction", endorsed, count)
    sums.mean("curriculum/rejected_fraction", rejected, count)
    sums.mean("curriculum/neutral_fraction", count - endorsed - rejected, count)
    sums.mean("curriculum/gate_mean", float(gates.double().sum()), count)
    sums.mean("curriculum/gap_mean", float(gaps.double().sum()), count)
    sums.spread("curriculum/gap_mean", float(gaps.double().square().sum()))
    if prepared.unshaped is not None:
        plain = prepared.unshaped[mask]
        factors = (batch.advantage[mask] / plain)[plain != 0].double()
        sums.mean("objective/advantage_factor_mean", float(factors.sum()), len(factors))
        sums.spread("objective/advantage_factor_mean", float(factors.square().sum()))
    # Rows that are all padding (episodes that an error ended) had no teacher.
    lengths = prepared.teacher.rows.lengths()
    blocks = [n for n, length in zip(prepared.teacher.privileged_tokens, lengths, strict=True) if length > 0]
    sums.mean("curriculum/teacher_context_tokens", sum(blocks), len(blocks))
    sums.mean("curriculum/teacher_context_fraction", sum(blocks), sum(lengths))


def add_update(sums: MetricSums, reports: Sequence[StepReport]) -> None:
    """Add what the optimizer steps of the iteration did: ``loss/*``, ``objective/*``, ``train/*``.

    A step that was skipped is counted, and its figures, which are not finite, are left out.
    """
    figures: dict[str, float] = {}
    # The same on all ranks, as the number of steps and the norm are.
    sums.maximum("train/skipped_steps", sum(report.skipped for report in reports))
    for report in reports:
        if report.skipped:
            continue
        sums.maximum("train/learning_rate", report.learning_rate)
        sums.mean("train/grad_norm", report.grad_norm, 1)
        for name, value in report.terms.items():
            sums.maximum(name, value)
        for total, count in report.supervised:
            sums.mean("loss/supervised", total, count)
        for part in report.sums:
            for name, value in part.items():
                figures[name] = figures.get(name, 0.0) + value
    tokens = figures.pop("tokens", 0.0)
    for name, value in figures.items():
        sums.mean(name, value, tokens)


def iteration_metrics(sums: MetricSums) -> dict[str, float]:
    """The tags of an iteration, sorted, over all ranks.

    ``throughput/tokens_per_s`` is sampled tokens over the seconds of the whole iteration, learning included.
    """
    metrics: dict[str, float] = sums.compute()
    tokens = metrics.pop(RESPONSE_TOKENS)
    seconds = math.fsum(value for name, value in metrics.items() if name.startswith("time/"))
    if seconds > 0:
        metrics["throughput/tokens_per_s"] = tokens / seconds
    return dict(sorted(metrics.items()))


@dataclass
class IterationReport:
    """What callbacks may read after an iteration.

    ``metrics`` are those that were logged, over all ranks; ``prepared`` is this rank's, and so are ``contexts``, what
    the teacher read of each episode (None: no teacher was scored). ``record`` is the teacher's own, over all ranks.
    """

    index: int
    metrics: dict[str, float]
    prepared: Prepared
    contexts: list[str] | None = None
    record: dict[str, Any] = field(default_factory=dict)
