"""The calls of an iteration that teachers and the parts of their text share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdar.episode import Episode, Task, TaskOutcome
from sdar.skills.memory import Memory


class IterationHooks(Memory):
    """Called on every rank in the order ``begin``, ``gather``, ``observe``; each does nothing by default.

    What is remembered from iteration to iteration is changed by ``observe`` alone, from arguments that are the same on
    all ranks: so the ranks agree, and an iteration that is collected again after a resume is the same.
    """

    def begin(self, tasks: Sequence[Task], *, iteration: int, seed: int) -> None:
        """Prepare an iteration: its tasks over all ranks, in their order; may be called again for the same one."""

    def gather(self, episodes: Sequence[Episode]) -> list[Any]:  # noqa: ARG002
        """What the other ranks must know of this rank's episodes: plain values that can be pickled."""
        return []

    def observe(self, outcomes: Sequence[TaskOutcome], gathered: Sequence[Any]) -> None:
        """Learn from an iteration.

        Args:
            outcomes: of the tasks given to ``begin``, in that order, over all ranks.
            gathered: the answers of ``gather``, rank by rank; do not depend on their order.
        """
