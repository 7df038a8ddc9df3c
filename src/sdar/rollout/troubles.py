"""What is said of collected episodes that did not go as they should."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sdar.episode import EndReason, Episode
from sdar.output.printable import printable

log = logging.getLogger(__name__)


def first_error(episodes: Sequence[Episode]) -> str | None:
    """Task and error of the first episode that an error ended; None: there is none."""
    failed = next((episode for episode in episodes if episode.end.is_error), None)
    return None if failed is None else f"task {printable(failed.task.task_id)}: {failed.error}"


def report_troubles(episodes: Sequence[Episode]) -> None:
    """Log one warning for errors, and one for first prompts that did not fit."""
    total = len(episodes)
    if failed := [episode for episode in episodes if episode.end.is_error]:
        log.warning("%d of %d episodes ended by an error; the first: %s", len(failed), total, first_error(failed))
    if unread := [episode for episode in episodes if episode.end is EndReason.CONTEXT_FULL and not episode.turns]:
        task = printable(unread[0].task.task_id)
        log.warning("%d of %d episodes had no room for a first response; the first: task %s", len(unread), total, task)
