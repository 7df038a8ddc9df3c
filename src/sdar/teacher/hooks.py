"""Hooks of an iteration, shared by teachers and the parts of their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdar.episode import Episode, Task, TaskOutcome
from sdar.skills.memory import Memory


class IterationHooks(Memory):
    """Called on every rank in the order ``begin``, ``gather``, ``observe``; each does nothing by default.

    Only ``observe`` may change state that lasts between iterations, and its arguments are the same on all ranks. So the
    ranks agree, and an iteration that is collected again after a resume is the same.
    """

    def begin(self, tasks: Sequence[Task], *, iteration: int, seed: int) -> None:
        """Prepare an iteration with its tasks of all ranks, in order; may be called again for the same iteration."""

    def gather(self, episodes: Sequence[Episode]) -> list[Any]:  # noqa: ARG002
        """What other ranks must know about this rank's episodes: plain values that can be pickled."""
        return []

    def observe(self, outcomes: Sequence[TaskOutcome], gathered: Sequence[Any]) -> None:
        """Learn from an iteration.

        Args:
            outcomes: of the tasks given to ``begin``, in that order, over all ranks.
            gathered: the results of ``gather``, rank by rank; do not depend on their order.
        """
