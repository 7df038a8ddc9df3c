"""What an iteration costs in arithmetic: tokens that went through a model, and an estimate of the operations.

A forward pass takes about 2 floating-point operations per parameter and token, a backward pass about 2 more for the
activations and 2 for each parameter that is trained: 6 where all of them are (Kaplan et al., arXiv 2001.08361, section
2.1). Attention over long contexts, sampling and the optimizer are not in it, and neither is padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from sdar.episode import Episode
from sdar.learning.metric_sums import MetricSums
from sdar.learning.prepared import Prepared
from sdar.objective.objective import ObjectiveConfig
from sdar.policy.trainable import trainable


@dataclass(frozen=True)
class FedTokens:
    """Tokens of a rank that went through a model, each pass counted.

    ``played``   by the student while it played: prompts, observations and sampled tokens. A prompt that a group shares,
                 which is computed once, counts for each of its members
    ``scored``   by the student and by the KL term's reference before the update; the student's own pass is left out
                 where the update's gives the same
    ``teacher``  by the teacher, privileged text included; beginnings that rows share count once
    ``learned``  forward and backward, by the student
    """

    played: int
    scored: int
    teacher: int
    learned: int


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of parameters: the student's, those of them that are trained, and the teacher's."""

    student: int
    trained: int
    teacher: int

    @classmethod
    def of(cls, student: nn.Module, teacher: nn.Module | None = None) -> ModelSizes:
        """Those of a student and of a teacher; None: it has the student's weights, or their shape."""
        own = _count(student.parameters())
        return cls(own, _count(trainable(student)), own if teacher is None else _count(teacher.parameters()))


def fed_tokens(
    episodes: Sequence[Episode], prepared: Prepared, objective: ObjectiveConfig, *, teacher_moves: bool = False
) -> FedTokens:
    """Count the tokens of an iteration.

    Args:
        episodes: all that were played, those that are not learned from as well.
        prepared: what is learned from, before the update.
        objective: says whether the teacher is asked again during the update.
        teacher_moves: whether optimizer steps change the teacher's weights.
    """
    batch = prepared.batch
    lengths = batch.lengths()
    turns = [turn for episode in episodes for turn in episode.turns]
    supervised = prepared.supervised
    return FedTokens(
        played=sum(len(turn.context_ids) + len(turn.response_ids) for turn in turns),
        scored=sum(lengths) * sum(scores is not None for scores in (batch.old_log_probs, batch.reference_log_probs)),
        teacher=_teacher_tokens(prepared, objective, teacher_moves),
        learned=sum(lengths[row] for step in prepared.steps for row in step.rows)
        + (0 if supervised is None else sum(supervised.rows.lengths())),
    )


def flops(tokens: FedTokens, sizes: ModelSizes) -> float:
    """Floating-point operations of these tokens, an estimate."""
    forward = 2 * (sizes.student * (tokens.played + tokens.scored) + sizes.teacher * tokens.teacher)
    return float(forward + (4 * sizes.student + 2 * sizes.trained) * tokens.learned)


def add_costs(sums: MetricSums, tokens: FedTokens, sizes: ModelSizes) -> None:
    """Add ``cost/tokens_*`` and ``cost/flops``: totals of all ranks."""
    sums.total("cost/tokens_played", tokens.played)
    sums.total("cost/tokens_scored", tokens.scored)
    sums.total("cost/tokens_teacher", tokens.teacher)
    sums.total("cost/tokens_learned", tokens.learned)
    sums.total("cost/flops", flops(tokens, sizes))


def _teacher_tokens(prepared: Prepared, objective: ObjectiveConfig, moves: bool) -> int:
    """Those of PREPARE, and those of the optimizer steps that ask the teacher again."""
    teacher = prepared.teacher
    if teacher is None:
        return 0
    total = 0
    if prepared.batch.teacher_log_probs is not None:
        total += teacher.fed_tokens(range(len(prepared.batch)))
    if objective.distillation_coefficient == 0 or teacher.states is not None:
        return total
    asked = [
        step.rows
        for number, step in enumerate(prepared.steps)
        if objective.divergence.full_vocabulary or (moves and number > 0)
    ]
    # Beginnings are computed again where the weights have changed.
    passes = asked if moves else [[row for rows in asked for row in rows]]
    return total + sum(teacher.fed_tokens(rows) for rows in passes)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
