"""Advantages relative to the group: how much better an attempt was than the other attempts at the same task."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from sdar.episode import Episode
from sdar.errors import UserError

GroupKey = Callable[[Episode], Hashable]


def by_task(episode: Episode) -> Hashable:
    """Episodes of the same task are a group."""
    return episode.task.task_id


def group_advantages(
    episodes: Sequence[Episode],
    *,
    group_key: GroupKey = by_task,
    invalid_penalty: float = 0.0,
    std_floor: float = 1.0,
) -> list[list[float]]:
    """One advantage per turn of each episode, in the given order.

    A_turn = (R_i - invalid_penalty * [turn invalid] - mean_G R) / max(std_G R, std_floor), where R is the episode's
    return and mean and unbiased standard deviation (n - 1) run over the group's episodes, once each, leaving out
    those that an error ended. A group with fewer than two such episodes compares nothing: its advantages are 0, as
    are those of episodes ended by an error.

    The floor (> 0, in units of reward) keeps a group without spread from turning a small penalty into a huge
    advantage; ``invalid_penalty`` >= 0. UserError for values outside; ValueError for a return that is not finite.

    Source: arXiv 2605.15155, section 2.1 and appendix B; the statistics are the paper's (one return per episode),
    the floor and the place of the penalty are ours.
    """
    if not std_floor > 0:
        raise UserError(f"std_floor is {std_floor}, allowed are numbers above 0.")
    if not invalid_penalty >= 0:
        raise UserError(f"invalid_penalty is {invalid_penalty}, allowed are numbers of at least 0.")
    statistics = {key: _mean_and_std(returns) for key, returns in _valid_returns(episodes, group_key).items()}
    advantages: list[list[float]] = []
    for episode in episodes:
        found = None if episode.end.is_error else statistics[group_key(episode)]
        if found is None:
            advantages.append([0.0] * len(episode.turns))
            continue
        mean, std = found
        scale = max(std, std_floor)
        centred = episode.episode_return - mean
        advantages.append([(centred - (0.0 if turn.valid else invalid_penalty)) / scale for turn in episode.turns])
    return advantages


@dataclass(frozen=True)
class GroupSummary:
    """Counts over the groups of an iteration; counts of ranks may be added, fractions follow from the sums.

    ``groups``            groups with at least two episodes that no error ended: those that can teach something
    ``equal_groups``      of these, groups whose returns are all equal: no advantage but penalties
    ``unusable_groups``   groups with fewer than two such episodes
    ``error_episodes``    episodes ended by an error
    """

    groups: int
    equal_groups: int
    unusable_groups: int
    error_episodes: int

    @property
    def equal_group_fraction(self) -> float:
        """``equal_groups / groups``, in [0, 1]; 0 where there is no group."""
        return self.equal_groups / self.groups if self.groups else 0.0

    def __add__(self, other: GroupSummary) -> GroupSummary:
        """Counts over both parts; a group must lie in one of them as a whole."""
        return GroupSummary(
            self.groups + other.groups,
            self.equal_groups + other.equal_groups,
            self.unusable_groups + other.unusable_groups,
            self.error_episodes + other.error_episodes,
        )


def summarise_groups(episodes: Sequence[Episode], *, group_key: GroupKey = by_task) -> GroupSummary:
    """Count the groups that :func:`group_advantages` sees."""
    valid = _valid_returns(episodes, group_key)
    usable = [returns for returns in valid.values() if len(returns) >= 2]
    return GroupSummary(
        groups=len(usable),
        equal_groups=sum(min(returns) == max(returns) for returns in usable),
        unusable_groups=len({group_key(episode) for episode in episodes}) - len(usable),
        error_episodes=sum(episode.end.is_error for episode in episodes),
    )


def _valid_returns(episodes: Sequence[Episode], group_key: GroupKey) -> dict[Hashable, list[float]]:
    """Returns of each group's episodes, errors left out."""
    returns: dict[Hashable, list[float]] = {}
    for episode in episodes:
        if episode.end.is_error:
            continue
        value = episode.episode_return
        if not math.isfinite(value):
            raise ValueError(f"the return of task {episode.task.task_id!r}, member {episode.member}, is {value}")
        returns.setdefault(group_key(episode), []).append(value)
    return returns


def _mean_and_std(returns: Sequence[float]) -> tuple[float, float] | None:
    """Mean and unbiased standard deviation, None below two values."""
    if len(returns) < 2:
        return None
    mean = math.fsum(returns) / len(returns)
    variance = math.fsum((value - mean) ** 2 for value in returns) / (len(returns) - 1)
    return mean, math.sqrt(variance)
