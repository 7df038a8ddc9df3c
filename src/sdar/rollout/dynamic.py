"""Dynamic sampling: groups without a learning signal are replaced by groups of other tasks, or left out.

A group whose returns are all equal has no advantage except penalties. Each place of an iteration has spare tasks, one
per round, which are drawn in advance for all ranks together. Only the groups of a place decide whether its spare tasks
are played, so the result does not depend on how places are assigned to ranks, and a resumed iteration is the same.

Source: DAPO (arXiv 2503.14476, section 3.2) draws new prompts until the batch is full; here the rounds are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sdar.episode import Episode, Task
from sdar.objective.advantage import has_spread

Play = Callable[[Sequence[Task]], list[list[Episode]]]
"""Plays the groups of some tasks; one list of episodes per task."""


@dataclass
class SampledGroups:
    """The groups of this rank, one per place, after the last round.

    ``groups``     the groups to learn from; episodes that are left out have ``Episode.in_loss`` False
    ``first``      the groups as drawn, before any was replaced: an unbiased sample of the policy
    ``replaced``   the groups that were played and then replaced
    ``skipped``    number of ``groups`` that are left out
    """

    groups: list[list[Episode]]
    first: list[list[Episode]] = field(default_factory=list)
    replaced: list[list[Episode]] = field(default_factory=list)
    skipped: int = 0

    @property
    def played(self) -> int:
        """Number of groups played in all rounds."""
        return len(self.groups) + len(self.replaced)


def sample_groups(rounds: Sequence[Sequence[Task]], play: Play, *, keep_equal_groups: bool) -> SampledGroups:
    """Play the places of a rank, and replay those without spread with other tasks.

    Args:
        rounds: per round, the task of every place; the first round is played completely.
        play: plays groups; called once per round that is needed.
        keep_equal_groups: whether to learn from groups that are still without spread after the last round.
    """
    groups = play(rounds[0])
    found = SampledGroups(groups, list(groups))
    for tasks in rounds[1:]:
        again = [place for place, group in enumerate(groups) if not has_spread(group)]
        if not again:
            break
        for place, group in zip(again, play([tasks[place] for place in again]), strict=True):
            found.replaced.append(groups[place])
            groups[place] = group
    if not keep_equal_groups:
        for group in groups:
            if not has_spread(group):
                found.skipped += 1
                for episode in group:
                    episode.in_loss = False
    return found
