"""How strong each term of the objective is: the norm of its own gradient, and how two of them lie to each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sdar.learning.ranks import Ranks
from sdar.objective.objective import ObjectiveConfig, TokenLosses, weighted_terms


class TermGradients:
    """Gradients of the terms of one optimizer step, each by itself, summed over its micro-batches.

    They are taken beside the step's own gradient, which they leave as it is to the last bit. The cost is one backward
    pass and one copy of the trained parameters in float32 per term.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [weight for weight in parameters if weight.requires_grad]
        self._sums: dict[str, list[Tensor]] = {}

    def add(self, losses: TokenLosses, divisors: Mapping[str, float], objective: ObjectiveConfig) -> None:
        """Add a micro-batch, before its backward, which has to keep the graph no longer than that."""
        for name, loss in weighted_terms(losses, divisors, objective).items():
            sums = self._sums.setdefault(name, [torch.zeros_like(w, dtype=torch.float32) for w in self._parameters])
            parts = torch.autograd.grad(loss, self._parameters, retain_graph=True, allow_unused=True)
            for total, part in zip(sums, parts, strict=True):
                if part is not None:
                    total += part

    def figures(self, ranks: Ranks) -> dict[str, float]:
        """Tags and values, over all ranks, which have the same terms.

        ``train/grad_norm/TERM``           Euclidean norm of the coefficient times the term's gradient
        ``objective/distillation_share``   that of the distillation over that of the policy gradient; left out where
                                           the latter is 0
        ``objective/gradient_cosine``      between the two, in [-1, 1]; left out where one of them is 0
        """
        sums = {name: [ranks.reduce(part.cpu(), "sum") for part in parts] for name, parts in self._sums.items()}
        norms = {name: math.sqrt(_dot(parts, parts)) for name, parts in sums.items()}
        figures = {f"train/grad_norm/{name}": norm for name, norm in norms.items()}
        policy, distillation = norms.get("policy", 0.0), norms.get("distillation", 0.0)
        if policy > 0 and "distillation" in norms:
            figures["objective/distillation_share"] = distillation / policy
            if distillation > 0:
                cosine = _dot(sums["policy"], sums["distillation"]) / (policy * distillation)
                figures["objective/gradient_cosine"] = min(max(cosine, -1.0), 1.0)
        return figures


def _dot(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    return math.fsum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True))
