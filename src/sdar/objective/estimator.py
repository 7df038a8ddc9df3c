"""Advantage estimators: what each turn of the iteration's episodes was worth, decided in PREPARE.

An estimator sees whole episodes, and all members of each group: groups are never split over ranks. Another one is a
subclass of :class:`AdvantageEstimator`, named by ``algorithm.advantage`` in a file of ``configs/algorithm``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from sdar.config.fields import NotNegative, Positive, settings
from sdar.episode import Episode
from sdar.errors import UserError
from sdar.objective.advantage import group_advantages, reference_code_advantages


class AdvantageEstimator(ABC):
    """Credit of every turn."""

    name: ClassVar[str]
    """What it is called in the documentation."""

    @abstractmethod
    def turns(self, episodes: Sequence[Episode]) -> list[list[float]]:
        """One finite number per turn of each episode, in the given order; 0 for episodes that an error ended."""

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, tuple[float, float]]:  # noqa: ARG002
        """Figures for the log, tag -> (sum, count): the same tags on every rank, divided when all ranks are added."""
        return {}

    def over_turn_rows(self) -> AdvantageEstimator:
        """The same with group statistics over turn rows, as in the paper's code; UserError without such a form."""
        raise UserError(
            f"loss_aggregation=reference_code takes group statistics over turn rows, which {type(self).__name__} does "
            "not have; set loss_aggregation=token_mean, or a method with GroupAdvantage such as algorithm=grpo"
        )


@settings(frozen=True)
class GroupAdvantage(AdvantageEstimator):
    """GRPO: the return against those of the group, in units of their spread (arXiv 2605.15155, section 2.1).

    ``invalid_penalty``  >= 0, in units of reward, taken from a turn that broke the action format
    ``std_floor``        > 0, in units of reward, least standard deviation that is divided by
    """

    invalid_penalty: NotNegative = 0.1
    std_floor: Positive = 1.0
    name: ClassVar[str] = "(R - mean) / std"

    def turns(self, episodes: Sequence[Episode]) -> list[list[float]]:
        """See :func:`sdar.objective.advantage.group_advantages`."""
        return group_advantages(episodes, invalid_penalty=self.invalid_penalty, std_floor=self.std_floor)

    def over_turn_rows(self) -> AdvantageEstimator:
        """Mean and standard deviation over all turns of the group."""
        return ReferenceCodeAdvantage(self.invalid_penalty)


@settings(frozen=True)
class CentredAdvantage(AdvantageEstimator):
    """Dr. GRPO: the return minus the group's mean, not divided by anything (arXiv 2503.20783, section 3).

    ``invalid_penalty``  >= 0, in units of reward, taken from a turn that broke the action format
    """

    invalid_penalty: NotNegative = 0.1
    name: ClassVar[str] = "R - mean"

    def turns(self, episodes: Sequence[Episode]) -> list[list[float]]:
        """See :func:`sdar.objective.advantage.group_advantages` without a floor."""
        return group_advantages(episodes, invalid_penalty=self.invalid_penalty, std_floor=None)


@settings(frozen=True)
class ReferenceCodeAdvantage(AdvantageEstimator):
    """GRPO as the paper's code computes it: what ``loss_aggregation=reference_code`` makes of :class:`GroupAdvantage`.

    ``invalid_penalty``  >= 0, in units of reward, taken from a turn that broke the action format
    """

    invalid_penalty: NotNegative = 0.1
    name: ClassVar[str] = "(R - mean) / std over turn rows"

    def turns(self, episodes: Sequence[Episode]) -> list[list[float]]:
        """See :func:`sdar.objective.advantage.reference_code_advantages`."""
        return reference_code_advantages(episodes, invalid_penalty=self.invalid_penalty)
