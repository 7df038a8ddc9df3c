"""The gap between teacher and student, and the gate it opens.

Source: arXiv 2605.15155, sections 2.2-2.3. The gap is measured on the sampled token alone; it is minus a one-sample
estimate of the reverse KL divergence. Everything in here is float32 and carries no gradient: with a gate that is not
detached, the term's gradient could change its sign where the teacher disagrees (Proposition 5).
"""

from __future__ import annotations

import torch
from torch import Tensor

LOG_PROB_FLOOR = -1e5
"""Lowest log-prob (nats) that enters the arithmetic. A token that the teacher rules out has -inf, and 0 * inf would be
nan; at the floor its gate is exactly 0 for every useful beta, and nothing is lost for finite logits."""


def bounded_log_probs(log_probs: Tensor) -> Tensor:
    """Log-probs in float32, bounded below by ``LOG_PROB_FLOOR``; nan stays nan, so that it is noticed. Any shape."""
    return log_probs.float().clamp(min=LOG_PROB_FLOOR)


def gap(teacher_log_probs: Tensor, student_log_probs: Tensor) -> Tensor:
    """Teacher minus student log-prob of each token, in nats, detached float32. Any shape, equal for both.

    Positive: the teacher endorses the token. Always finite unless an input is nan or +inf.
    """
    return bounded_log_probs(teacher_log_probs.detach()) - bounded_log_probs(student_log_probs.detach())


def gap_gate(gap: Tensor, beta: float) -> Tensor:
    """sigmoid(beta * gap): in [0, 1], non-decreasing in the gap, 0.5 where the gap is 0. Detached float32.

    ``beta`` >= 0, in 1/nats (ValueError below 0); 0 gives 0.5 everywhere, whatever the teacher says.
    """
    if beta < 0:
        raise ValueError(f"beta is {beta}, allowed are numbers of at least 0")
    return torch.sigmoid(beta * gap.detach().float())
