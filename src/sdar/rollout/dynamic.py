"""Dynamic sampling: groups that can teach nothing are played again with other tasks, or left out.

A group whose returns are all equal has no advantage but penalties. Each place of an iteration has tasks in waiting, one
per round, that are drawn beforehand for all ranks together: whether they are needed is decided by the groups of that
place alone. So nothing depends on how places are dealt out to ranks, and a resumed iteration is the same again.

Source: DAPO (arXiv 2503.14476, section 3.2) draws new prompts until the batch is full; the rounds here are bounded.
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

    ``groups``     what is learned from; episodes that are left out say so (``Episode.in_loss``)
    ``first``      the groups as they were drawn: the policy's sample of its tasks, whatever was replaced later
    ``replaced``   the groups that were played and then thrown away for another
    ``skipped``    how many of ``groups`` are left out
    """

    groups: list[list[Episode]]
    first: list[list[Episode]] = field(default_factory=list)
    replaced: list[list[Episode]] = field(default_factory=list)
    skipped: int = 0

    @property
    def played(self) -> int:
        """How many groups were played, in all rounds."""
        return len(self.groups) + len(self.replaced)


def sample_groups(rounds: Sequence[Sequence[Task]], play: Play, *, keep_equal_groups: bool) -> SampledGroups:
    """Play the places of a rank, and those without spread again.

    Args:
        rounds: per round, the task of every place; the first round is played as a whole.
        play: plays groups; it is called once per round that is needed.
        keep_equal_groups: whether groups that are still without spread after the last round are learned from.
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
