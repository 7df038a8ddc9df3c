"""Scores from hidden states, a few tokens' logits at a time.

The logits of all tokens never exist, neither in the forward pass nor in the backward pass, which computes each chunk's
again. The gradient of the head's weight is one tensor that every chunk adds to: left to autograd, each chunk would
make one of its own before it is added, and two of them are what a large vocabulary has no room for. For the same
reason the derivatives at the logits are written out here, and the larger tensors are changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdar.objective.full_vocabulary import FullVocabularyDivergence, bounded
from sdar.objective.tokens import LOG_PROB_FLOOR

CHUNK_LOGITS = 10 * 2**20
"""Least size of a chunk of logits, in float32 numbers: 40 MiB, of which at most about four exist at once. Just above
32 MiB, from where on the C library hands memory back as soon as it is free."""

_CHUNKS_PER_CARD = 128
"""A chunk takes this share of a GPU's memory: with four of them, a thirty-second."""

_BLOCK_ROWS = 8192  # rows of the weight's gradient that are converted to its accumulator's dtype at a time


def chunk_tokens_of(vocabulary: int, device: torch.device) -> int:
    """Tokens whose logits exist at once where nothing else is asked for: all that fit in a chunk of the device.

    On a GPU it follows from the size of the memory, not from what is free, so that figures do not depend on that.
    """
    logits = CHUNK_LOGITS
    if device.type == "cuda":
        logits = max(logits, torch.cuda.get_device_properties(device).total_memory // (4 * _CHUNKS_PER_CARD))
    return max(1, logits // vocabulary)


@dataclass(frozen=True)
class OutputHead:
    """The linear map from hidden states [..., H] to logits [..., V], and what follows it.

    ``weight``  [V, H];  ``bias``  [V] or None
    ``finish``  logits [n, V] to logits [n, V], differentiable, no parameters (scaling, capping, temperature); None
                where nothing follows
    """

    weight: Tensor
    bias: Tensor | None = None
    finish: Callable[[Tensor], Tensor] | None = None

    def linear(self, hidden: Tensor) -> Tensor:
        """The linear map in the weight's dtype, its result in float32 (float64 stays)."""
        raw = torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        return raw if raw.dtype == torch.float64 else raw.float()

    def finished(self, raw: Tensor) -> Tensor:
        """Logits from what :meth:`linear` gave; the very same tensor where nothing follows."""
        return raw if self.finish is None else self.finish(raw)

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probs [n, V] of hidden states [n, H], bounded below, without gradient."""
        with torch.no_grad():
            return _normalized_(self.finished(self.linear(hidden)))

    def to(self, dtype: torch.dtype) -> OutputHead:
        """Detached, with its parameters in ``dtype``; they are shared where they have it already."""
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        return replace(self, weight=self.weight.detach().to(dtype), bias=bias)


class TeacherStates(NamedTuple):
    """The teacher of the same tokens: its hidden states [N, H'] and its head, of the same V. No gradient."""

    hidden: Tensor
    head: OutputHead


class HeadScores(NamedTuple):
    """Per token [N], float32, nats; None where it was not asked for. ``teacher_log_probs`` carries no gradient."""

    log_probs: Tensor
    entropy: Tensor | None = None
    divergence: Tensor | None = None
    teacher_log_probs: Tensor | None = None


def score_logits(
    logits: Tensor,
    targets: Tensor,
    *,
    entropy: bool = False,
    teacher_log_probs: Tensor | None = None,
    divergence: FullVocabularyDivergence | None = None,
) -> HeadScores:
    """Scores of targets [n] from finished logits [n, V], and from the teacher's bounded log-probs [n, V].

    Differentiable, and as wasteful as autograd makes it.
    """
    normalizer = torch.logsumexp(logits, dim=-1)
    log_probs = logits.gather(-1, targets[:, None]).squeeze(-1) - normalizer
    spread = normalizer - (torch.softmax(logits, dim=-1) * logits).sum(-1) if entropy else None
    if teacher_log_probs is None:
        return HeadScores(log_probs, spread)
    taught = teacher_log_probs.gather(-1, targets[:, None]).squeeze(-1).detach()
    if divergence is None:
        return HeadScores(log_probs, spread, None, taught)
    return HeadScores(
        log_probs, spread, divergence.between(bounded(logits - normalizer[:, None]), teacher_log_probs), taught
    )


def chunked_scores(
    hidden: Tensor,
    head: OutputHead,
    targets: Tensor,
    *,
    entropy: bool = False,
    teacher: TeacherStates | None = None,
    divergence: FullVocabularyDivergence | None = None,
    chunk_tokens: int | None = None,
) -> HeadScores:
    """Scores of the tokens ``targets`` [N] from the hidden states [N, H] that predict them.

    Gradients flow to ``hidden`` and to the head's weight and bias where they require one. Under autocast the linear map
    runs in autocast's dtype, as it would in the model.

    Args:
        hidden: [N, H], the student's.
        head: the student's head.
        targets: [N] long, the ids to score.
        entropy: whether the entropy of each distribution is wanted.
        teacher: hidden states and head of the teacher, for the same tokens in the same order.
        divergence: what is measured between the two distributions; needs ``teacher``.
        chunk_tokens: tokens whose logits exist at once; None: see :func:`chunk_tokens_of`.

    Raises:
        ValueError: the teacher has other tokens or another vocabulary, or ``divergence`` has no teacher.
    """
    if teacher is not None:
        if len(teacher.hidden) != len(hidden):
            raise ValueError(f"the teacher has {len(teacher.hidden)} tokens, the student {len(hidden)}")
        if teacher.head.weight.shape[0] != head.weight.shape[0]:
            raise ValueError(
                f"the teacher's vocabulary has {teacher.head.weight.shape[0]} tokens, the student's "
                f"{head.weight.shape[0]}"
            )
    elif divergence is not None:
        raise ValueError("a divergence needs a teacher")
    dtype = _compute_dtype(hidden, head.weight)
    if teacher is not None:
        cast_head = teacher.head.to(_compute_dtype(teacher.hidden, teacher.head.weight))
        teacher = TeacherStates(teacher.hidden.detach(), cast_head)
    size = chunk_tokens or chunk_tokens_of(head.weight.shape[0], hidden.device)
    job = _Job(head.to(dtype), targets, entropy, teacher, divergence, size)
    return HeadScores(*_Chunked.apply(hidden, head.weight, head.bias, job))  # type: ignore[no-untyped-call]


def _compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype that the linear map would run in inside the model."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


@dataclass(frozen=True)
class _Job:
    """Everything but the tensors that may need a gradient."""

    head: OutputHead
    targets: Tensor
    entropy: bool
    teacher: TeacherStates | None
    divergence: FullVocabularyDivergence | None
    chunk_tokens: int

    def chunks(self) -> Iterator[slice]:
        """Consecutive chunks of the tokens, at least one, which is empty where there is no token."""
        for start in range(0, max(1, len(self.targets)), self.chunk_tokens):
            yield slice(start, start + self.chunk_tokens)

    def scores(self, hidden: Tensor, chunk: slice) -> HeadScores:
        """Scores of a chunk, without gradient."""
        return score_logits(
            self.head.finished(self.head.linear(hidden[chunk])),
            self.targets[chunk],
            entropy=self.entropy,
            teacher_log_probs=self.teacher_log_probs(chunk),
            divergence=self.divergence,
        )

    def teacher_log_probs(self, chunk: slice) -> Tensor | None:
        """The teacher's distributions for a chunk."""
        return None if self.teacher is None else self.teacher.head.log_probs(self.teacher.hidden[chunk])

    def slope(self, states: Tensor, chunk: slice, grads: HeadScores) -> Tensor:
        """Gradient [n, V] at the unfinished logits of a chunk, in the dtype of the linear map."""
        raw = self.head.linear(states)
        if self.head.finish is None:
            return self._slope_at_logits(_normalized_(raw), chunk, grads).to(states.dtype)
        with torch.enable_grad():
            logits = self.head.finish(raw.requires_grad_())
        slope = self._slope_at_logits(_normalized_(logits.detach().clone()), chunk, grads)
        return torch.autograd.grad(logits, raw, slope)[0].to(states.dtype)

    def _slope_at_logits(self, log_p: Tensor, chunk: slice, grads: HeadScores) -> Tensor:
        """Gradient at logits with log-probs ``log_p``: that at the log-probs, less p times its sum (the softmax)."""
        if self.divergence is not None and grads.divergence is not None:
            teacher = self.teacher_log_probs(chunk)
            assert teacher is not None
            slope = self.divergence.slope(log_p, teacher).mul_(grads.divergence[chunk, None])
            del teacher
            rest = -slope.sum(-1, keepdim=True)
        else:
            slope = torch.zeros_like(log_p)
            rest = log_p.new_zeros(len(log_p), 1)
        p = log_p.exp()
        if grads.entropy is not None:
            # d entropy / d logits = -p (log p + entropy)
            weight = grads.entropy[chunk, None]
            log_p.mul_(p)
            slope.addcmul_(log_p, weight, value=-1.0)
            rest += weight * log_p.sum(-1, keepdim=True)
        if grads.log_probs is not None:
            weight = grads.log_probs[chunk, None]
            slope.scatter_add_(-1, self.targets[chunk, None], weight)
            rest -= weight
        return slope.addcmul_(p, rest)


class _Chunked(torch.autograd.Function):
    """:func:`chunked_scores` with a backward pass that computes the logits again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, job: _Job) -> tuple[Tensor | None, ...]:
        with torch.autocast(hidden.device.type, enabled=False):
            parts = [job.scores(hidden, chunk) for chunk in job.chunks()]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, bias)
        ctx.job = job
        columns = [None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)]
        if columns[-1] is not None:
            ctx.mark_non_differentiable(columns[-1])
        return tuple(columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        job: _Job = ctx.job
        wants_hidden, wants_weight, wants_bias, _ = ctx.needs_input_grad
        grads = HeadScores(*grad_outputs)  # type: ignore[arg-type]
        # Sums over many chunks: 16 bits would lose the small contributions of the later ones.
        sums = torch.float64 if weight.dtype == torch.float64 else torch.float32
        grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=sums, device=weight.device) if wants_weight else None
        grad_bias = torch.zeros(bias.shape, dtype=sums, device=bias.device) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in job.chunks():
                _add_chunk(job, hidden, chunk, grads, grad_hidden, grad_weight, grad_bias)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
        )


def _add_chunk(
    job: _Job,
    hidden: Tensor,
    chunk: slice,
    grads: HeadScores,
    grad_hidden: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
) -> None:
    """Add what a chunk contributes to the gradients; all of its own tensors are gone afterwards."""
    states = hidden[chunk].to(job.head.weight.dtype)
    slope = job.slope(states, chunk, grads)
    if grad_hidden is not None:
        grad_hidden[chunk] = slope @ job.head.weight
    if grad_weight is not None:
        _add_outer(grad_weight, slope, states)
    if grad_bias is not None:
        grad_bias += slope.sum(0, dtype=grad_bias.dtype)


def _add_outer(total: Tensor, slope: Tensor, states: Tensor) -> None:
    """Add slope^T states, [V, H], in place."""
    if total.dtype == slope.dtype:
        total.addmm_(slope.t(), states)
        return
    for start in range(0, len(total), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        total[rows] += slope[:, rows].t() @ states


def _normalized_(logits: Tensor) -> Tensor:
    """Bounded log-probs, in the place of the logits."""
    return logits.sub_(logits.logsumexp(-1, keepdim=True)).clamp_(min=LOG_PROB_FLOOR)
