"""An advantage that prefers short solutions: of two attempts that solve a task, the one with fewer turns is better."""

import statistics
from collections import defaultdict
from typing import ClassVar

from sdar.config.fields import Fraction, NotNegative, Positive, settings
from sdar.objective.estimator import AdvantageEstimator


@settings(frozen=True)
class SwiftAdvantage(AdvantageEstimator):
    """GRPO's advantage of the return times ``discount`` to the number of turns.

    ``discount``         in [0, 1], per turn; 1: turns cost nothing, and this is GRPO
    ``invalid_penalty``  >= 0, in units of reward, taken from a turn that broke the action format
    ``std_floor``        > 0, in units of reward, least standard deviation that is divided by
    """

    discount: Fraction = 0.95
    invalid_penalty: NotNegative = 0.1
    std_floor: Positive = 1.0
    name: ClassVar[str] = "(discounted R - mean) / std"

    def turns(self, episodes):
        """One number per turn of each episode; 0 where an error ended it, or no other attempt is left to compare."""
        values = [e.episode_return * self.discount ** len(e.turns) for e in episodes]
        groups = defaultdict(list)
        for episode, value in zip(episodes, values, strict=True):
            if not episode.end.is_error:
                groups[episode.task.task_id].append(value)
        return [self._of(e, value, groups[e.task.task_id]) for e, value in zip(episodes, values, strict=True)]

    def _of(self, episode, value, group):
        if episode.end.is_error or len(group) < 2:
            return [0.0] * len(episode.turns)
        centred = value - statistics.fmean(group)
        scale = max(statistics.stdev(group), self.std_floor)
        return [(centred - (0.0 if turn.valid else self.invalid_penalty)) / scale for turn in episode.turns]
