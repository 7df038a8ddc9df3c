"""GiGPO: a turn is compared with the turns that other attempts made in the same state.

Source: arXiv 2505.10978, and its code's defaults (langfengQ/verl-agent, gigpo/core_gigpo.py: mean_norm, gamma 0.95,
step weight 1, states equal when their text is).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar, Literal

from sdar.config.fields import Fraction, NotNegative, Positive, settings
from sdar.episode import Episode
from sdar.objective.advantage import by_task, group_advantages, mean_and_std
from sdar.objective.estimator import AdvantageEstimator

Mode = Literal["mean_norm", "mean_std_norm"]


@settings(frozen=True)
class StepGroupAdvantage(AdvantageEstimator):
    """A_turn = A_E + step_weight * A_S: credit of the episode in its group plus credit of the turn in its step group.

    A_E is the episode's return against the group's, with the turn's own penalty, as in GRPO. A_S is the turn's
    discounted return against those of all turns of the group that started from the same state (the observation's
    anchor, equal text); a turn whose state nobody else met has 0. Returns are the environment's: the penalty counts
    once, in A_E, and moves no other turn (the code subtracts it in both).

    ``invalid_penalty``  >= 0, in units of reward, taken from a turn that broke the action format
    ``std_floor``        > 0, in units of reward, least standard deviation that is divided by (mean_std_norm)
    ``gamma``            in [0, 1], discount per turn
    ``step_weight``      >= 0; 0 leaves A_E alone: GRPO with mean_std_norm, Dr. GRPO's advantage with mean_norm
    ``mode``             of both parts: mean_norm subtracts the mean, mean_std_norm also divides by the deviation
    """

    invalid_penalty: NotNegative = 0.1
    std_floor: Positive = 1.0
    gamma: Fraction = 0.95
    step_weight: NotNegative = 1.0
    mode: Mode = "mean_norm"
    name: ClassVar[str] = "A_E + w A_S"

    @property
    def _floor(self) -> float | None:
        return self.std_floor if self.mode == "mean_std_norm" else None

    def turns(self, episodes: Sequence[Episode]) -> list[list[float]]:
        """One number per turn of each episode, in units of reward (mean_norm) or of the deviation."""
        whole = group_advantages(episodes, invalid_penalty=self.invalid_penalty, std_floor=self._floor)
        if self.step_weight == 0:
            return whole
        steps = step_advantages(episodes, gamma=self.gamma, std_floor=self._floor)
        return [
            [a_e + self.step_weight * a_s for a_e, a_s in zip(one, other, strict=True)]
            for one, other in zip(whole, steps, strict=True)
        ]

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, tuple[float, float]]:
        """``rollout/step_group_fraction``: share of turns whose state another turn of the group has met."""
        sizes = [len(members) for members in step_groups(episodes).values()]
        return {"rollout/step_group_fraction": (sum(size for size in sizes if size >= 2), sum(sizes))}


def step_advantages(episodes: Sequence[Episode], *, gamma: float, std_floor: float | None = None) -> list[list[float]]:
    """A_S of every turn: its discounted return minus the mean over its step group, divided as in group_advantages.

    Mean and unbiased standard deviation run over the turns of a step group, each once. 0 for turns that are alone in
    theirs, and for all turns of groups with fewer than two episodes that no error ended.
    """
    returns = [discounted_returns(episode, gamma) for episode in episodes]
    advantages = [[0.0] * len(values) for values in returns]
    for members in step_groups(episodes).values():
        found = mean_and_std([returns[i][k] for i, k in members])
        if found is None:
            continue
        mean, std = found
        scale = 1.0 if std_floor is None else max(std, std_floor)
        for i, k in members:
            advantages[i][k] = (returns[i][k] - mean) / scale
    return advantages


def discounted_returns(episode: Episode, gamma: float) -> list[float]:
    """R_k = sum over j >= k of gamma^(j - k) r_j for every turn k: the turn's own reward and those after it."""
    returns: list[float] = []
    value = 0.0
    for turn in reversed(episode.turns):
        value = turn.reward + gamma * value
        returns.append(value)
    return returns[::-1]


def step_groups(
    episodes: Sequence[Episode],
) -> dict[tuple[Hashable, str], list[tuple[int, int]]]:
    """(group, anchor) -> (position of the episode, turn) of every turn that began in that state, in order.

    Episodes that an error ended are left out, and so are groups with fewer than two others.
    """
    attempts: dict[Hashable, list[int]] = {}
    for i, episode in enumerate(episodes):
        if not episode.end.is_error:
            attempts.setdefault(by_task(episode), []).append(i)
    groups: dict[tuple[Hashable, str], list[tuple[int, int]]] = {}
    for key, members in attempts.items():
        for i in members if len(members) >= 2 else []:
            for k, turn in enumerate(episodes[i].turns):
                groups.setdefault((key, turn.observation.anchor), []).append((i, k))
    return groups
