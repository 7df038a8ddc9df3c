"""The tokens that the teacher endorsed and rejected most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS = 10
"""Longest list of either kind."""

MIN_COUNT = 3
"""How often a token must have been sampled to be listed: the gap of one occurrence says little."""


@dataclass(frozen=True)
class TokenGap:
    """A token of the vocabulary in one iteration.

    ``text``      as the tokenizer decodes it alone: not checked, not escaped
    ``count``     how often it was sampled
    ``gap_mean``  mean of its gaps, nats
    """

    text: str
    count: int
    gap_mean: float


class TokenTable(NamedTuple):
    """The tokens whose mean gaps are farthest from 0, farthest first; of one rank."""

    endorsed: list[TokenGap]
    rejected: list[TokenGap]


def token_table(
    ids: Int[Tensor, " N"], gaps: Float[Tensor, " N"], text: Callable[[int], str], *, margin: float
) -> TokenTable:
    """The table of N sampled tokens.

    Args:
        ids: what was sampled.
        gaps: teacher minus student log-prob of each, nats.
        text: gives the text of an id.
        margin: a token with a mean gap within this distance of 0 is neither endorsed nor rejected, nats.
    """
    vocabulary, place = ids.unique(return_inverse=True)
    counts = place.bincount(minlength=len(vocabulary))
    means = place.bincount(gaps.double(), minlength=len(vocabulary)) / counts

    def farthest(sign: float) -> list[TokenGap]:
        listed = torch.nonzero((counts >= MIN_COUNT) & (sign * means > margin)).flatten()
        order = (sign * means[listed]).argsort(descending=True, stable=True)[:ROWS]
        return [TokenGap(text(int(vocabulary[k])), int(counts[k]), float(means[k])) for k in listed[order].tolist()]

    return TokenTable(farthest(1.0), farthest(-1.0))
