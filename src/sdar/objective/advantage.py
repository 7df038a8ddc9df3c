"""Advantages relative to the group: how much better an attempt was than the other attempts at the same task."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from sdar.episode import Episode


def by_task(episode: Episode) -> Hashable:
    """Episodes of the same task are a group."""
    return episode.task.task_id


def group_advantages(
    episodes: Sequence[Episode],
    *,
    invalid_penalty: float = 0.0,
    std_floor: float | None = 1.0,
) -> list[list[float]]:
    """One advantage per turn of each episode, in the given order.

    A_turn = (R_i - invalid_penalty * [turn invalid] - mean_G R) / max(std_G R, std_floor), where R is the episode's
    return and mean and unbiased standard deviation (n - 1) run over the group's episodes, once each, leaving out
    those that an error ended. A group with fewer than two such episodes compares nothing: its advantages are 0, as
    are those of episodes ended by an error.

    The floor (> 0, in units of reward) keeps a group without spread from turning a small penalty into a huge
    advantage; None: differences from the mean are not divided at all. ``invalid_penalty`` >= 0. ValueError for a return
    that is not finite.

    Source: arXiv 2605.15155, section 2.1 and appendix B; the statistics are the paper's (one return per episode),
    the floor and the place of the penalty are ours.
    """
    statistics = {key: mean_and_std(returns) for key, returns in _valid_returns(episodes).items()}
    advantages: list[list[float]] = []
    for episode in episodes:
        found = None if episode.end.is_error else statistics[by_task(episode)]
        if found is None:
            advantages.append([0.0] * len(episode.turns))
            continue
        mean, std = found
        scale = 1.0 if std_floor is None else max(std, std_floor)
        centred = episode.episode_return - mean
        advantages.append([(centred - (0.0 if turn.valid else invalid_penalty)) / scale for turn in episode.turns])
    return advantages


REFERENCE_CODE_EPSILON = 1e-6
"""What the release adds to the standard deviation, in units of reward."""


def reference_code_advantages(episodes: Sequence[Episode], *, invalid_penalty: float = 0.0) -> list[list[float]]:
    """One advantage per turn of each episode, with the statistics of the paper's code.

    The score of a turn is its episode's return minus the turn's own penalty. A_turn = (score - mean) / (std + 1e-6),
    where mean and unbiased standard deviation run over *all turns* of the group's episodes: long episodes weigh more,
    and a group of equal returns gives large advantages to few penalties. A group with a single turn has mean 0 and
    standard deviation 1. Episodes that an error ended have no turns here (the release knows no such end).

    ``invalid_penalty`` >= 0. ValueError for a return that is not finite.

    Source: ZJU-REAL/SDAR at 8b85c23, core_algos.py (compute_grpo_outcome_advantage) and ray_trainer.py
    (apply_invalid_action_penalty).
    """
    scores = [[_checked_return(e) - (0.0 if turn.valid else invalid_penalty) for turn in e.turns] for e in episodes]
    of_group: dict[Hashable, list[float]] = {}
    for episode, values in zip(episodes, scores, strict=True):
        if not episode.end.is_error:
            of_group.setdefault(by_task(episode), []).extend(values)
    statistics = {key: mean_and_std(values) or (0.0, 1.0) for key, values in of_group.items()}
    advantages: list[list[float]] = []
    for episode, values in zip(episodes, scores, strict=True):
        if episode.end.is_error:
            advantages.append([0.0] * len(values))
            continue
        mean, std = statistics[by_task(episode)]
        advantages.append([(value - mean) / (std + REFERENCE_CODE_EPSILON) for value in values])
    return advantages


def has_spread(group: Sequence[Episode]) -> bool:
    """Whether a group's returns differ: those of the episodes that no error ended, of which there must be two."""
    returns = {_checked_return(episode) for episode in group if not episode.end.is_error}
    return len(returns) >= 2


def equal_groups(episodes: Sequence[Episode]) -> tuple[int, int]:
    """Groups whose returns are all equal, which teach nothing but penalties, and groups that can teach at all.

    A group counts with at least two episodes that no error ended. Sums over ranks give the fraction over all of them.
    """
    usable = [returns for returns in _valid_returns(episodes).values() if len(returns) >= 2]
    return sum(min(returns) == max(returns) for returns in usable), len(usable)


def _valid_returns(episodes: Sequence[Episode]) -> dict[Hashable, list[float]]:
    """Returns of each group's episodes, errors left out."""
    returns: dict[Hashable, list[float]] = {}
    for episode in episodes:
        if not episode.end.is_error:
            returns.setdefault(by_task(episode), []).append(_checked_return(episode))
    return returns


def _checked_return(episode: Episode) -> float:
    value = episode.episode_return
    if not math.isfinite(value):
        raise ValueError(f"the return of task {episode.task.task_id!r}, member {episode.member}, is {value}")
    return value


def mean_and_std(returns: Sequence[float]) -> tuple[float, float] | None:
    """Mean and unbiased standard deviation, None below two values."""
    if len(returns) < 2:
        return None
    mean = math.fsum(returns) / len(returns)
    variance = math.fsum((value - mean) ** 2 for value in returns) / (len(returns) - 1)
    return mean, math.sqrt(variance)
