"""The figures of an iteration: counts and sums over all of it, over all ranks, and only then divided.

Nothing here is a mean of batch means, and nothing is the value of the last micro-batch. Sums are float64.
(torchmetrics' MeanMetric would do the same with one collective call per metric; a tally needs two for all of them.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdar.episode import EndReason, Episode
from sdar.learning.prepare import Prepared
from sdar.objective.advantage import summarise_groups
from sdar.objective.gate import Gate, GateTokens, gap
from sdar.rollout.dynamic import SampledGroups

GAP_MARGIN_NATS = 0.01
"""Gaps within this distance of 0 are neutral: most tokens of a response are forced and have a gap of nearly 0."""

RESPONSE_TOKENS = "response_tokens"
"""Total of a tally that :func:`iteration_metrics` needs: the sampled tokens that are learned from."""


@dataclass
class Tally:
    """Named sums that become means, standard deviations, totals and maxima when read.

    Every rank must add to the same names, with a count of 0 where it has nothing to count: :meth:`reduced` adds the
    ranks' sums name by name.
    """

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    """name -> (sum, count)"""
    squares: dict[str, float] = field(default_factory=dict)
    """name -> sum of squares, for the means of which the standard deviation is wanted too"""
    totals: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def mean(self, name: str, total: float, count: float) -> None:
        """Add ``count`` observations whose sum is ``total`` to a mean."""
        old = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (old[0] + total, old[1] + count)

    def spread(self, name: str, squares: float) -> None:
        """Add to the sum of squares of a mean ``.../x_mean``, which gives ``.../x_std`` (over all, divided by n)."""
        self.squares[name] = self.squares.get(name, 0.0) + squares

    def total(self, name: str, value: float) -> None:
        """Add to a sum that is not divided by anything."""
        self.totals[name] = self.totals.get(name, 0.0) + value

    def maximum(self, name: str, value: float) -> None:
        """Note a value of which the largest counts; -inf where there is none."""
        self.maxima[name] = max(self.maxima.get(name, -math.inf), value)

    def reduced(self, reduce: Callable[[Tensor, str], Tensor]) -> Tally:
        """The tally of all ranks. ``reduce(tensor, "sum" | "max")`` combines a float64 tensor over the ranks."""
        means, squares, totals = sorted(self.sums), sorted(self.squares), sorted(self.totals)
        flat = [value for name in means for value in self.sums[name]]
        flat += [self.squares[name] for name in squares] + [self.totals[name] for name in totals]
        added = iter(reduce(torch.tensor(flat, dtype=torch.float64), "sum").tolist())
        maxima = sorted(self.maxima)
        peaks = reduce(torch.tensor([self.maxima[name] for name in maxima], dtype=torch.float64), "max").tolist()
        return Tally(
            sums={name: (next(added), next(added)) for name in means},
            squares={name: next(added) for name in squares},
            totals={name: next(added) for name in totals},
            maxima=dict(zip(maxima, peaks, strict=True)),
        )

    def metrics(self) -> dict[str, float]:
        """All figures. A mean or a maximum of nothing is left out: it is not 0."""
        figures = {name: total / count for name, (total, count) in self.sums.items() if count > 0}
        for name, squares in self.squares.items():
            if name in figures:
                variance = squares / self.sums[name][1] - figures[name] ** 2
                figures[name.removesuffix("_mean") + "_std"] = math.sqrt(max(variance, 0.0))
        maxima = {name: value for name, value in self.maxima.items() if value > -math.inf}
        return figures | self.totals | maxima


def add_rollout(tally: Tally, episodes: Sequence[Episode]) -> None:
    """Add the ``rollout/*`` figures that can be read off the episodes and their groups.

    ``rollout/end/*`` counts all episodes; everything else leaves out those an error ended, which are no attempts.
    """
    for reason in EndReason:
        tally.mean(f"rollout/end/{reason.value}", sum(e.end is reason for e in episodes), len(episodes))
    played = [episode for episode in episodes if not episode.end.is_error]
    turns = [turn for episode in played for turn in episode.turns]
    tally.mean("rollout/success_rate", sum(e.success for e in played), len(played))
    tally.mean("rollout/return_mean", math.fsum(e.episode_return for e in played), len(played))
    tally.mean("rollout/turns_mean", len(turns), len(played))
    tally.mean("rollout/valid_action_rate", sum(t.valid for t in turns), len(turns))
    tally.mean("rollout/response_tokens_mean", sum(len(t.response_ids) for t in turns), len(turns))
    tally.mean("rollout/response_truncated_fraction", sum(t.truncated for t in turns), len(turns))
    tally.mean("rollout/history_dropped_turns", sum(t.dropped_turns for t in turns), len(turns))
    groups = summarise_groups(episodes)
    tally.mean("rollout/equal_group_fraction", groups.equal_groups, groups.groups)


def add_sampling(tally: Tally, sampled: SampledGroups) -> None:
    """Add the counts of dynamic sampling: groups of all ranks."""
    tally.total("rollout/groups_played", sampled.played)
    tally.total("rollout/groups_replaced", len(sampled.replaced))
    tally.total("rollout/groups_skipped", sampled.skipped)


def add_scores(tally: Tally, prepared: Prepared, gate: Gate) -> None:
    """Add the figures of the rows and of theta_old's scores.

    ``rollout/context_tokens_max``, ``rollout/entropy`` and, where a teacher was scored, ``curriculum/*``; where it
    shaped advantages also ``objective/advantage_factor_mean`` and ``_std``, over tokens whose advantage is not 0.

    Args:
        tally: where to add.
        prepared: the iteration before its first update.
        gate: the iteration's gate; a token is strongly gated above its threshold (the paper's 0.5: gap > 0).
    """
    batch = prepared.batch
    mask = batch.response_mask
    count = int(mask.sum())
    tally.maximum("rollout/context_tokens_max", max((n for n in batch.lengths() if n), default=-math.inf))
    tally.mean("rollout/entropy", float(prepared.entropy[mask].double().sum()), count)
    if prepared.kl_charges is not None:
        tally.mean("rollout/kl_charge_mean", math.fsum(prepared.kl_charges), len(prepared.kl_charges))
    if batch.teacher_log_probs is None or batch.old_log_probs is None:
        return
    gaps = gap(batch.teacher_log_probs[mask], batch.old_log_probs[mask])
    gates = gate.value(
        GateTokens(gaps, prepared.entropy[mask], prepared.max_entropy, batch.advantage[mask], batch.turn_index[mask])
    )
    endorsed = int((gaps > GAP_MARGIN_NATS).sum())
    rejected = int((gaps < -GAP_MARGIN_NATS).sum())
    tally.mean("curriculum/strongly_gated_fraction", int((gates > gate.threshold).sum()), count)
    tally.mean("curriculum/endorsed_fraction", endorsed, count)
    tally.mean("curriculum/rejected_fraction", rejected, count)
    tally.mean("curriculum/neutral_fraction", count - endorsed - rejected, count)
    tally.mean("curriculum/gate_mean", float(gates.double().sum()), count)
    tally.mean("curriculum/gap_mean", float(gaps.double().sum()), count)
    tally.spread("curriculum/gap_mean", float(gaps.double().square().sum()))
    if prepared.unshaped is not None:
        plain = prepared.unshaped[mask]
        factors = (batch.advantage[mask] / plain)[plain != 0].double()
        tally.mean("objective/advantage_factor_mean", float(factors.sum()), len(factors))
        tally.spread("objective/advantage_factor_mean", float(factors.square().sum()))
    # Rows that are all padding (episodes that an error ended) had no teacher.
    blocks = [n for n, length in zip(prepared.privileged_tokens, prepared.teacher_tokens, strict=True) if length > 0]
    tally.mean("curriculum/teacher_context_tokens", sum(blocks), len(blocks))
    tally.mean("curriculum/teacher_context_fraction", sum(blocks), sum(prepared.teacher_tokens))


def iteration_metrics(tally: Tally) -> dict[str, float]:
    """The tags of an iteration, sorted, from the tally of all ranks.

    ``throughput/tokens_per_s`` is sampled tokens over the seconds of the whole iteration, learning included.
    """
    metrics = tally.metrics()
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
