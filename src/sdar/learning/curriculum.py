"""Where in the responses the teacher has an opinion: the gap by turn, by advantage, and by part of the response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sdar.learning.metric_sums import MetricSums
from sdar.learning.response_parts import PARTS, response_parts

GAP_MARGIN_NATS = 0.01
"""Gaps within this distance of 0 are neutral: most tokens of a response are forced and have a gap of nearly 0. A token
whose gap is farther from 0 is open."""

TURNS = 8
"""Turns that have tags of their own; all later ones share one."""

TURN_LABELS = (*(f"{turn:02d}" for turn in range(TURNS)), f"{TURNS:02d}+")
"""Turns as tags name them, counted from 0."""

SIGNS = ("positive", "negative", "zero")
"""Of a token's advantage."""

BY_TURN = ("gap_mean", "strongly_gated_of_open")
"""What there is of each turn."""


@dataclass(frozen=True, eq=False)
class SampledTokens:
    """The N sampled tokens of a rank as the curriculum sees them, response after response.

    ``ids``        [N] what was sampled
    ``gap``        [N] teacher minus student log-prob, nats
    ``strong``     [N] whether the gate is above its threshold
    ``advantage``  [N] of the token's turn, shaped where a method shapes it
    ``turn``       [N] 0-based turn in its episode
    ``sizes``      number of tokens of each response; they add up to N
    """

    ids: Int[Tensor, " N"]
    gap: Float[Tensor, " N"]
    strong: Bool[Tensor, " N"]
    advantage: Float[Tensor, " N"]
    turn: Int[Tensor, " N"]
    sizes: Sequence[int]


@dataclass(frozen=True)
class GroupSums:
    """Counts and sums over the tokens of one group.

    ``tokens``  how many there are
    ``gap``     sum of their gaps, nats
    ``open``    how many have a gap farther from 0 than ``GAP_MARGIN_NATS``
    ``strong``  how many of the open ones are strongly gated
    """

    tokens: float
    gap: float
    open: float
    strong: float


def group_sums(tokens: SampledTokens, *groupings: tuple[Int[Tensor, " N"], int]) -> list[list[GroupSums]]:
    """The sums of each group of each grouping.

    A grouping says which of how many groups, counted from 0, each token is in.
    """
    is_open = tokens.gap.abs() > GAP_MARGIN_NATS
    weights = torch.stack([tokens.gap.double(), is_open.double(), (is_open & tokens.strong).double()])
    sizes = [groups for _, groups in groupings]
    # One count for all groupings: the groups of each are numbered behind those of the one before.
    offsets = [sum(sizes[:k]) for k in range(len(sizes))]
    groups = torch.cat([group + offset for (group, _), offset in zip(groupings, offsets, strict=True)])
    columns = [groups.bincount(minlength=sum(sizes)).tolist()]
    columns += [groups.bincount(each.repeat(len(sizes)), minlength=sum(sizes)).tolist() for each in weights]
    rows = [GroupSums(*row) for row in zip(*columns, strict=True)]
    return [rows[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]


def add_curriculum(sums: MetricSums, tokens: SampledTokens, text: Callable[[int], str]) -> None:
    """Add ``curriculum/open_fraction``, ``curriculum/endorsed_of_open`` and ``curriculum/by_*``.

    Args:
        sums: where to add.
        tokens: those of this rank; there may be none.
        text: gives the text of a token's id.
    """
    sign = torch.where(tokens.advantage > 0, 0, torch.where(tokens.advantage < 0, 1, 2))
    parts = response_parts([text(token) for token in tokens.ids.tolist()], tokens.sizes)
    by_turn, by_sign, by_part = group_sums(
        tokens, (tokens.turn.clamp(max=TURNS), len(TURN_LABELS)), (sign, len(SIGNS)), (parts, len(PARTS))
    )
    found = sum(group.open for group in by_turn)
    endorsed = int((tokens.gap > GAP_MARGIN_NATS).sum())
    figures = {
        "curriculum/open_fraction": (found, float(len(tokens.gap))),
        "curriculum/endorsed_of_open": (endorsed, found),
    }
    for label, group in zip(TURN_LABELS, by_turn, strict=True):
        figures[f"curriculum/by_turn/gap_mean/{label}"] = group.gap, group.tokens
        figures[f"curriculum/by_turn/strongly_gated_of_open/{label}"] = group.strong, group.open
    for label, group in zip(SIGNS, by_sign, strict=True):
        figures[f"curriculum/by_advantage/{label}/gap_mean"] = group.gap, group.tokens
    for label, group in zip(PARTS, by_part, strict=True):
        figures[f"curriculum/by_part/{label}/gap_mean"] = group.gap, group.tokens
        figures[f"curriculum/by_part/{label}/open_fraction"] = group.open, group.tokens
    sums.means(figures)
