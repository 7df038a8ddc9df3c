"""What the student, and where it is needed the teacher, say of a micro-batch at the current weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sdar.learning.batch import TokenBatch, TokenRows, align
from sdar.objective.chunked_head import TeacherStates
from sdar.objective.full_vocabulary import FullVocabularyDivergence
from sdar.objective.objective import ObjectiveConfig
from sdar.objective.tokens import TokenScores
from sdar.policy.log_probs import kept_head, plain_head, score_tokens, token_states
from sdar.policy.row_parts import row_parts
from sdar.policy.sharding import is_sharded, one_pass
from sdar.policy.shared_prefixes import SharedRows
from sdar.teacher.weights import TeacherModel


@dataclass(frozen=True)
class UpdateTeacher:
    """The teacher of a micro-batch while the student is updated.

    ``rows``   the micro-batch's rows with the privileged block in their context, on the student's device
    ``model``  whose weights the teacher has
    ``kept``   the teacher as it was before the update; None: it is asked now
    ``shared`` how the rows share their beginnings; None: they are computed whole
    ``most_tokens``  padded tokens that are computed at once: the block makes rows longer than the student's
    """

    rows: TokenRows
    model: TeacherModel
    kept: TeacherStates | None = None
    shared: SharedRows | None = None
    most_tokens: int | None = None

    def states(self, temperature: float) -> TeacherStates:
        """Hidden states of all response tokens, row by row, and the head."""
        if self.kept is not None:
            return self.kept
        with self.model.model() as model:
            parts = [one_pass(model, partial(token_states, model, *rows, kept)) for rows, kept in self._parts(model)]
            hidden = parts[0] if len(parts) == 1 else torch.cat(parts)
            # Sharded weights of another model than the student's are given back when this ends.
            head = kept_head if is_sharded(model) and not self.model.is_student else plain_head
            return TeacherStates(hidden, head(model, temperature))

    def log_probs(self, student_mask: Tensor, temperature: float) -> Tensor:
        """Log-probs [B, T] of the response tokens, at the student's positions."""
        found = self.rows.ids.new_zeros(self.rows.ids.shape, dtype=torch.float32)
        with self.model.model() as model:
            start = 0
            for rows, shared in self._parts(model):
                scores = score_tokens(model, *rows, temperature=temperature, shared=shared)
                found[start : start + len(rows.ids), : rows.ids.shape[1]] = scores.log_probs
                start += len(rows.ids)
        return align(found, self.rows.response_mask, student_mask)

    def _parts(self, model: PreTrainedModel) -> list[tuple[TokenRows, SharedRows | None]]:
        """The rows in parts, in order."""
        # Ranks fetch sharded weights equally often.
        if self.most_tokens is None or is_sharded(model):
            return [(self.rows, self.shared)]
        parts = row_parts(self.rows.lengths(), self.most_tokens)
        if len(parts) == 1:
            return [(self.rows, self.shared)]
        return [(self.rows.select(part), None if self.shared is None else self.shared.of(part)) for part in parts]


def student_scores(
    model: PreTrainedModel,
    batch: TokenBatch,
    objective: ObjectiveConfig,
    *,
    temperature: float,
    teacher: UpdateTeacher | None = None,
) -> tuple[TokenScores, TokenBatch]:
    """The student's scores of the rows, with gradient, and the rows with the teacher's log-probs of this moment.

    Args:
        model: the student.
        batch: rows on the model's device; there may be none.
        objective: terms and coefficients; they decide what is computed.
        temperature: > 0, the sampling temperature.
        teacher: the teacher of these rows, to be asked again; None: its log-probs of the batch are enough.

    Without rows the model still runs, on tokens that are not scored: scores [0, T] whose sum is 0 and gives every
    parameter a gradient of 0. So a rank that has nothing to learn from takes part in what the ranks do together.
    """
    divergence = objective.divergence
    # Log-probs that are not known beforehand are to be kept, and the entropy with them.
    entropy = objective.wants_entropy or batch.old_log_probs is None
    full = None
    if isinstance(divergence, FullVocabularyDivergence) and teacher is not None:
        full = divergence.under(objective.gate)
    if len(batch) == 0:
        nobody = TokenRows.nobody(batch.ids.device)
        if teacher is not None and teacher.kept is None:
            replace(teacher, rows=nobody, shared=None).log_probs(nobody.response_mask, temperature)
        if teacher is not None:
            batch = replace(batch, teacher_log_probs=torch.zeros(batch.ids.shape, device=batch.ids.device))
        empty = score_tokens(model, *nobody).log_probs.sum().expand(batch.ids.shape)
        return TokenScores(empty, empty if entropy else None, None if full is None else empty), batch
    states = None
    if teacher is not None and full is not None:
        states = teacher.states(temperature)
    elif teacher is not None:
        batch = replace(batch, teacher_log_probs=teacher.log_probs(batch.response_mask, temperature))
    scores = score_tokens(
        model,
        *batch.rows,
        temperature=temperature,
        entropy=entropy,
        teacher=states,
        divergence=full,
    )
    if scores.teacher_log_probs is not None:
        # Gap and gate are those of the teacher that the divergence is taken from.
        batch = replace(batch, teacher_log_probs=scores.teacher_log_probs)
    return scores, batch
