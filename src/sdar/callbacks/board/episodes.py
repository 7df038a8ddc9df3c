"""Episodes as text: what the policy was told, what it said, and what that was worth."""

from __future__ import annotations

from collections.abc import Sequence

from sdar.callbacks.board.text import page
from sdar.episode import Episode

SOLVED, UNSOLVED = "episodes/solved", "episodes/unsolved"


def chosen(episodes: Sequence[Episode], iteration: int) -> dict[str, int]:
    """Tag -> position: one that solved its task and one that did not, where there are; others as iterations go on."""
    found = {}
    for tag, solved in ((SOLVED, True), (UNSOLVED, False)):
        positions = [i for i, one in enumerate(episodes) if one.success is solved and not one.end.is_error]
        if positions:
            found[tag] = positions[iteration % len(positions)]
    return found


def episode_page(episode: Episode, advantages: Sequence[float], iteration: int, reads: str | None = None) -> str:
    """Markdown of an episode, of bounded length.

    Args:
        episode: what was played.
        advantages: one per turn.
        iteration: in which it was played.
        reads: what the teacher reads of it; None: no teacher was scored.
    """
    task = episode.task
    facts = [
        f"iteration  {iteration}",
        f"task       {task.task_id} ({task.task_type})",
        f"member     {episode.member}",
        f"end        {episode.end.value}, return {episode.episode_return:g}, {len(episode.turns)} turns",
        f"wanted     {task.description}",
    ]
    parts = [("Episode", "\n".join(facts))]
    for number, (turn, advantage) in enumerate(zip(episode.turns, advantages, strict=True), 1):
        remarks = [f"advantage {advantage:+.3f}", f"reward {turn.reward:g}"]
        remarks += [word for word, holds in (("not in the format", not turn.valid), ("cut", turn.truncated)) if holds]
        parts.append((f"{number}. It saw", turn.observation.text))
        parts.append((f"{number}. It said ({', '.join(remarks)})", turn.response_text))
    if episode.last_observation is not None:
        parts.append(("In the end it saw", episode.last_observation.text))
    if reads:
        parts.append(("The teacher read", reads))
    return page(parts)
