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
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from sdar.config.fields import Fraction, settings
from sdar.episode import Episode
from sdar.errors import UserError
from sdar.objective.advantage import by_task, mean_and_std

_NO_SPREAD = 1e-12
"""Standard deviation of changes of belief, in [0, 1], up to which they are equal: what rounding leaves of equal numbers
must not be taken for a spread and divided by."""

_FIRST_BELIEF_LIMIT, _BELIEF_LIMIT = 1e-4, 1e-6
"""How near AgentOPSD's code lets the first and the later beliefs come to 0 and 1; the latter is also what it adds to a
standard deviation."""


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

    With e_k the sum of the gaps of turn k:  c_k = gamma * c_(k-1) + e_k,  B_k = sigmoid(logit(B_0) + c_k),
    d_k = B_k - B_(k-1), and factor = 1 + spread * z_k, kept within [1 - spread, 1 + spread].

    ``statistics``  ``reference_code``, as in the public code: z = sign(A) * (d_k - mean) / (std + 1e-6) over the turns
    of the episode, with the standard deviation of a population; B_0 is the group's mean return, in units of reward,
    within [1e-4, 1 - 1e-4]; B_k stays 1e-6 away from 0 and 1. With a reward of 10 for success B_0 is at one of its two
    bounds: the lower one where no attempt succeeded. ``group``, ours: z is sign(A) * d_k in unbiased standard
    deviations from its mean, both over the turns of the group's episodes; B_0 is the group's success rate, half an
    episode away from 0 and 1; a group without spread has z = 0

    ``granularity``  ``turn``; or ``token``, which the public scripts for WebShop and Search-QA set: the same for the
    tokens of each turn instead of the turns of an episode, with (sqrt(variance + 1e-6) + 1e-6) as deviation. It needs
    ``statistics=reference_code``

    ``spread``  in [0, 1]
    ``gamma``   in [0, 1], what is left of older evidence after a turn

    Source: arXiv 2608.05987; ZethWang/AgentOPSD at 0c478b2, verl/trainer/ppo/opsd_utils.py
    (compute_opsd_turn_advantage, compute_opsd_token_advantage and compute_group_mean_v0, with ``belief_mult`` and
    ``signed`` as its scripts set them). Its mean return is less the penalty of one turn of each episode.
    """

    spread: Fraction = 0.2
    gamma: Fraction = 1.0
    statistics: Literal["reference_code", "group"] = "reference_code"
    granularity: Literal["turn", "token"] = "turn"
    name: ClassVar[str] = "belief of the turn"

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.granularity == "token" and self.statistics != "reference_code":
            raise UserError(
                "algorithm.shaping.granularity=token needs algorithm.shaping.statistics=reference_code, got "
                f"{self.statistics!r}"
            )

    def factors(self, tokens: ScoredTokens) -> Tensor:
        """The same for all tokens of a turn, unless ``granularity`` is ``token``."""
        if self.granularity == "token":
            return self._factors_of_tokens(tokens)
        evidence, advantage = _by_turn(tokens)
        if self.statistics == "group":
            factors = self._over_groups(tokens.episodes, evidence, advantage)
        else:
            factors = self._over_episodes(tokens, evidence, advantage)
        index = zip(tokens.episode.tolist(), tokens.turn.tolist(), strict=True)
        return torch.tensor([factors[i][k] for i, k in index], dtype=torch.float32)

    def _over_episodes(
        self, tokens: ScoredTokens, evidence: Sequence[Sequence[float]], advantage: Sequence[Sequence[float]]
    ) -> list[list[float]]:
        """Factors of every turn, with the statistics of the public code. Turns without sampled tokens have no part."""
        factors = [[1.0] * len(episode.turns) for episode in tokens.episodes]
        sampled = [set[int]() for _ in tokens.episodes]
        for i, k in zip(tokens.episode.tolist(), tokens.turn.tolist(), strict=True):
            sampled[i].add(k)
        for i, belief in _mean_returns(tokens.episodes).items():
            turns = sorted(sampled[i])
            changes = belief_changes([evidence[i][k] for k in turns], belief, self.gamma, _BELIEF_LIMIT)
            mean, variance = _population(changes)
            for k, change in zip(turns, changes, strict=True):
                z = (change - mean) / (math.sqrt(variance) + _BELIEF_LIMIT)
                factors[i][k] = self._factor(_signed(z, advantage[i][k]))
        return factors

    def _over_groups(
        self,
        episodes: Sequence[Episode],
        evidence: Sequence[Sequence[float]],
        advantage: Sequence[Sequence[float]],
    ) -> list[list[float]]:
        factors = [[1.0] * len(episode.turns) for episode in episodes]
        for members in _groups(episodes).values():
            solved = sum(episodes[i].success for i in members)
            belief = min(max(solved, 0.5), len(members) - 0.5) / len(members)
            signed = {
                (i, k): _signed(change, advantage[i][k])
                for i in members
                for k, change in enumerate(belief_changes(evidence[i], belief, self.gamma))
            }
            found = mean_and_std(list(signed.values()))
            if found is None or found[1] <= _NO_SPREAD:
                continue
            for (i, k), value in signed.items():
                factors[i][k] = self._factor((value - found[0]) / found[1])
        return factors

    def _factors_of_tokens(self, tokens: ScoredTokens) -> Tensor:
        factors = [1.0] * len(tokens.gap)
        places: dict[tuple[int, int], list[int]] = {}
        for place, turn in enumerate(zip(tokens.episode.tolist(), tokens.turn.tolist(), strict=True)):
            places.setdefault(turn, []).append(place)
        gaps, advantage = tokens.gap.tolist(), tokens.advantage.tolist()
        beliefs = _mean_returns(tokens.episodes)
        for (i, _), of_turn in places.items():
            if i not in beliefs:
                continue
            changes = belief_changes([gaps[place] for place in of_turn], beliefs[i], self.gamma, _BELIEF_LIMIT)
            mean, variance = _population(changes)
            deviation = math.sqrt(variance + _BELIEF_LIMIT) + _BELIEF_LIMIT
            for place, change in zip(of_turn, changes, strict=True):
                factors[place] = self._factor(_signed((change - mean) / deviation, advantage[place]))
        return torch.tensor(factors, dtype=torch.float32)

    def _factor(self, z: float) -> float:
        return min(max(1.0 + self.spread * z, 1.0 - self.spread), 1.0 + self.spread)


def belief_changes(evidence: Sequence[float], belief: float, gamma: float, limit: float = 0.0) -> list[float]:
    """B_k - B_(k-1) for every turn k, from B_0 = ``belief`` in (0, 1); see :class:`AgentOPSD`.

    ``limit``: how near B_1, B_2, ... may come to 0 and 1.
    """
    start, before, collected = math.log(belief / (1.0 - belief)), belief, 0.0
    changes: list[float] = []
    for value in evidence:
        collected = gamma * collected + value
        now = min(max(_sigmoid(start + collected), limit), 1.0 - limit)
        changes.append(now - before)
        before = now
    return changes


def _signed(value: float, advantage: float) -> float:
    """The value with the sign of the advantage; 0 where that is 0."""
    return value if advantage > 0 else -value if advantage < 0 else 0.0


def _population(values: Sequence[float]) -> tuple[float, float]:
    """Mean and variance (divided by n); 0 and 0 without values."""
    if not values:
        return 0.0, 0.0
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / len(values)


def _mean_returns(episodes: Sequence[Episode]) -> dict[int, float]:
    """Position of an episode that no error ended -> the mean return of its group, within the bounds of a belief."""
    found: dict[int, float] = {}
    for members in _groups(episodes).values():
        mean = math.fsum(episodes[i].episode_return for i in members) / len(members)
        found |= dict.fromkeys(members, min(max(mean, _FIRST_BELIEF_LIMIT), 1.0 - _FIRST_BELIEF_LIMIT))
    return found


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
