"""The metrics of an iteration: counts and sums over all of it, over all ranks, and only then divided.

Nothing here is a mean of batch means, and nothing is the value of the last micro-batch. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdar.episode import EndReason, Episode
from sdar.learning.curriculum import BY_TURN, GAP_MARGIN_NATS, TURN_LABELS, SampledTokens, add_curriculum
from sdar.learning.metric_sums import MetricSums
from sdar.learning.prepared import Prepared
from sdar.learning.token_table import TokenTable, token_table
from sdar.learning.update import StepReport
from sdar.objective.advantage import equal_groups
from sdar.objective.gate import Gate
from sdar.objective.importance import sampler_mismatch
from sdar.rollout.dynamic import SampledGroups

RESPONSE_TOKENS = "response_tokens"
"""Total of :class:`MetricSums` that :func:`iteration_metrics` needs: the sampled tokens that are learned from."""


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


def add_scores(sums: MetricSums, prepared: Prepared, gate: Gate, text: Callable[[int], str]) -> TokenTable | None:
    """Add the figures of the rows and of theta_old's scores.

    ``rollout/context_tokens_max``, ``rollout/entropy``, where another program has sampled ``rollout/sampler_mismatch``,
    and where a teacher was scored ``curriculum/*``; where it shaped advantages also ``objective/advantage_factor_mean``
    and ``_std``, over tokens whose advantage is not 0.

    Args:
        sums: where to add.
        prepared: the iteration as theta_old sees it.
        gate: the iteration's gate; a token is strongly gated above its threshold (the paper's 0.5: gap > 0).
        text: gives the text of a token's id.

    Returns:
        This rank's most endorsed and most rejected tokens; None: no teacher was scored.
    """
    batch = prepared.batch
    mask = batch.response_mask
    count = int(mask.sum())
    assert prepared.entropy is not None
    sums.maximum("rollout/context_tokens_max", max((n for n in batch.lengths() if n), default=-math.inf))
    sums.mean("rollout/entropy", float(prepared.entropy[mask].double().sum()), count)
    if batch.sampler_log_probs is not None:
        assert batch.old_log_probs is not None
        apart = sampler_mismatch(batch.old_log_probs[mask], batch.sampler_log_probs[mask])
        sums.mean("rollout/sampler_mismatch", float(apart.sum()), count)
    if prepared.kl_charges is not None:
        sums.mean("rollout/kl_charge_mean", math.fsum(prepared.kl_charges), len(prepared.kl_charges))
    tokens = prepared.scored()
    if tokens is None or prepared.teacher is None:
        return None
    gaps, gates = tokens.gap, gate.value(tokens)
    endorsed = int((gaps > GAP_MARGIN_NATS).sum())
    rejected = int((gaps < -GAP_MARGIN_NATS).sum())
    strong = gates > gate.threshold
    sums.mean("curriculum/strongly_gated_fraction", int(strong.sum()), count)
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
    ids, turn = batch.ids[mask], batch.turn_index[mask]
    # Rows and the turns of a row are in order, so a response ends where either changes.
    response = mask.nonzero()[:, 0] * (1 + max(turn.tolist(), default=0)) + turn
    sizes = response.unique_consecutive(return_counts=True)[1].tolist()
    add_curriculum(sums, SampledTokens(ids, gaps, strong, batch.advantage[mask], turn, sizes), text)
    return token_table(ids, gaps, text, margin=GAP_MARGIN_NATS)


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
    the teacher read of each episode, and ``token_table``, its most endorsed and most rejected tokens (None: no teacher
    was scored). ``gate`` is the iteration's: by now its schedule has moved on. ``record`` is the teacher's own, over
    all ranks.
    """

    index: int
    metrics: dict[str, float]
    prepared: Prepared
    gate: Gate
    contexts: list[str] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    token_table: TokenTable | None = None

    @property
    def by_turn(self) -> dict[str, list[float | None]]:
        """The gap of each turn, over all ranks: a column of a heat map of iterations and turns.

        By name (``gap_mean`` in nats, ``strongly_gated_of_open`` in [0, 1]) one number per turn of
        :data:`~sdar.learning.curriculum.TURN_LABELS`; None: there was no such token.
        """
        return {
            name: [self.metrics.get(f"curriculum/by_turn/{name}/{turn}") for turn in TURN_LABELS] for name in BY_TURN
        }
