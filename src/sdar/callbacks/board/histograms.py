"""How gap and gate are spread over the tokens of an iteration of which the teacher has an opinion.

Most tokens of a response are forced: their gap is 0, and with them each picture would be one bar.
"""

from __future__ import annotations

import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.summary import histogram_raw

from sdar.learning.curriculum import GAP_MARGIN_NATS
from sdar.objective.gate import Gate
from sdar.objective.tokens import DistillationTokens

GAP, GATE = "curriculum/open_gap", "curriculum/open_gate"
OUTERMOST = 2.0
"""Nats. What lies further out is counted in the first and last bin: a picture of [-20, 20] shows one bar."""
_BINS = 80


def histograms(tokens: DistillationTokens, gate: Gate) -> list[Summary]:
    """Gap in nats, and gate, each over the tokens with |gap| > 0.01; [] without any."""
    is_open = tokens.gap.abs() > GAP_MARGIN_NATS
    if not bool(is_open.any()):
        return []
    gates = gate.value(tokens)[is_open]
    lowest = -1.0 if bool((gates < 0).any()) else 0.0  # a centred gate
    return [_histogram(GAP, tokens.gap[is_open], -OUTERMOST, OUTERMOST), _histogram(GATE, gates, lowest, 1.0)]


def _histogram(tag: str, values: Tensor, low: float, high: float) -> Summary:
    """Counts between ``low`` and ``high``; the sums are of the values as they are."""
    exact = values.detach().double().cpu()
    kept = exact.clamp(low, high)
    counts = torch.histc(kept, _BINS, low, high)
    limits = torch.linspace(low, high, _BINS + 1, dtype=torch.float64)[1:]
    sums = (exact.numel(), float(exact.sum()), float(exact.square().sum()))
    return histogram_raw(tag, float(kept.min()), float(kept.max()), *sums, limits.tolist(), counts.tolist())
