"""Shaped advantages: the teacher's second way into the loss, besides the distillation term.

A shaping multiplies the advantage of every sampled token by a factor that the teacher has a say in, in PREPARE, with
theta_old on both sides of the gap. It adds no term to the loss. Another one is a subclass of :class:`Shaping`, named by
``algorithm.shaping`` in a file of ``configs/algorithm``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from sdar.config.fields import Fraction, settings
from sdar.episode import Episode
from sdar.objective.advantage import by_task, mean_and_std

_NO_SPREAD = 1e-12
"""Standard deviation of changes of belief, in [0, 1], up to which they are equal: what rounding leaves of equal numbers
must not be taken for a spread and divided by."""


class ScoredTokens(NamedTuple):
    """The N sampled tokens of an iteration that are learned from, in the order of episodes, turns and tokens.

    How episodes are cut into rows does not show here. Groups are whole.

    ``episodes``   all episodes of this rank
    ``advantage``  [N] float32, of the token's turn
    ``gap``        [N] float32, teacher minus old log-prob, nats
    ``episode``    [N] int64, position of the token's episode in ``episodes``
    ``turn``       [N] int64, 0-based turn in that episode
    """

    episodes: Sequence[Episode]
    advantage: Tensor
    gap: Tensor
    episode: Tensor
    turn: Tensor


@settings(frozen=True)
class Shaping(ABC):
    """A_t = A * ((1 - weight) + weight * factor_t).

    ``weight``  in [0, 1], multiplied by the schedule of the coefficient; at 0 advantages stay as they were, to the bit
    """

    weight: Fraction = 0.5
    name: ClassVar[str]
    """What it is called in the documentation."""

    @abstractmethod
    def factors(self, tokens: ScoredTokens) -> Tensor:
        """[N] float32, at least 0 so that no advantage changes its sign; 1: as it was."""

    def scaled(self, factor: float) -> Self:
        """The shaping of an iteration whose schedule says ``factor`` >= 0; the weight never leaves [0, 1]."""
        return self if factor == 1.0 else replace(self, weight=min(self.weight * factor, 1.0))

    def shaped(self, tokens: ScoredTokens) -> Tensor:
        """[N] float32: the advantage of every token."""
        return tokens.advantage * ((1.0 - self.weight) + self.weight * self.factors(tokens))


@settings(frozen=True)
class RLSD(Shaping):
    """factor = exp(sign(A) * gap), kept within [1 - clip, 1 + clip]: more credit, or blame, where the teacher agrees.

    ``clip``  in [0, 1]

    Source: arXiv 2605.15155, table of baselines (lambda 0.5), and ZJU-REAL/SDAR at 8b85c23, rlsd_utils.py.
    """

    clip: Fraction = 0.2
    name: ClassVar[str] = "clip(exp(sign(A) gap))"

    def factors(self, tokens: ScoredTokens) -> Tensor:
        """1 where the advantage or the gap is 0."""
        return torch.exp(tokens.advantage.sign() * tokens.gap).clamp(1.0 - self.clip, 1.0 + self.clip)


@settings(frozen=True)
class AgentOPSD(Shaping):
    """One factor per turn, from how the turn changed the belief that the episode will succeed.

    With e_k the sum of the gaps of turn k:  c_k = gamma * c_(k-1) + e_k,  B_k = sigmoid(logit(B_0) + c_k), B_0 the
    group's success rate, d_k = B_k - B_(k-1), and factor = 1 + spread * z, kept within [1 - spread, 1 + spread], where
    z is sign(A) * d_k in standard deviations from its mean. Ours where the source is silent: mean and deviation run
    over the turns of a group's episodes (a group is whole on every rank); B_0 stays half an episode away from 0 and 1;
    a group without spread has z = 0.

    ``spread``  in [0, 1]
    ``gamma``   in [0, 1], what is left of older evidence after a turn

    Source: arXiv 2608.05987.
    """

    spread: Fraction = 0.2
    gamma: Fraction = 0.95
    name: ClassVar[str] = "belief of the turn"

    def factors(self, tokens: ScoredTokens) -> Tensor:
        """The same for all tokens of a turn."""
        evidence, advantage = _by_turn(tokens)
        factors = [[1.0] * len(episode.turns) for episode in tokens.episodes]
        for members in _groups(tokens.episodes).values():
            solved = sum(tokens.episodes[i].success for i in members)
            belief = min(max(solved, 0.5), len(members) - 0.5) / len(members)
            changes = {i: belief_changes(evidence[i], belief, self.gamma) for i in members}
            signed = {
                (i, k): change if value > 0 else -change if value < 0 else 0.0
                for i in members
                for k, (change, value) in enumerate(zip(changes[i], advantage[i], strict=True))
            }
            found = mean_and_std(list(signed.values()))
            if found is None or found[1] <= _NO_SPREAD:
                continue
            for (i, k), value in signed.items():
                z = (value - found[0]) / found[1]
                factors[i][k] = min(max(1.0 + self.spread * z, 1.0 - self.spread), 1.0 + self.spread)
        index = zip(tokens.episode.tolist(), tokens.turn.tolist(), strict=True)
        return torch.tensor([factors[i][k] for i, k in index], dtype=torch.float32)


def belief_changes(evidence: Sequence[float], belief: float, gamma: float) -> list[float]:
    """B_k - B_(k-1) for every turn k, from B_0 = ``belief`` in (0, 1); see :class:`AgentOPSD`."""
    start, before, collected = math.log(belief / (1.0 - belief)), belief, 0.0
    changes: list[float] = []
    for value in evidence:
        collected = gamma * collected + value
        now = _sigmoid(start + collected)
        changes.append(now - before)
        before = now
    return changes


def _by_turn(tokens: ScoredTokens) -> tuple[list[list[float]], list[list[float]]]:
    """Sum of the gaps and advantage of every turn; 0 for turns without sampled tokens."""
    evidence = [[0.0] * len(episode.turns) for episode in tokens.episodes]
    advantage = [[0.0] * len(episode.turns) for episode in tokens.episodes]
    columns = (tokens.episode, tokens.turn, tokens.gap.double(), tokens.advantage)
    for i, k, gap, value in zip(*(column.tolist() for column in columns), strict=True):
        evidence[i][k] += gap
        advantage[i][k] = value
    return evidence, advantage


def _groups(episodes: Sequence[Episode]) -> dict[Hashable, list[int]]:
    """Positions of the episodes of each group, those that an error ended left out."""
    groups: dict[Hashable, list[int]] = {}
    for i, episode in enumerate(episodes):
        if not episode.end.is_error:
            groups.setdefault(by_task(episode), []).append(i)
    return groups


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
