"""Readable episodes of every iteration, one JSON object per line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor

from sdar.callbacks.base import IterationCallback, append_lines
from sdar.config.fields import Count, checked
from sdar.environments.tools import as_text
from sdar.episode import Episode
from sdar.evaluation.result import EvaluationResult
from sdar.learning.datamodule import Iteration
from sdar.learning.metrics import IterationReport
from sdar.learning.module import SDARModule

FILE_NAME = "episodes.jsonl"

MOST_TOKENS = 4096
"""Tokens of an episode whose figures are written: the first ones, of about 45 bytes each."""
MOST_SIBLINGS, MOST_ACTIONS, LONGEST_ACTION = 15, 50, 120
"""What is written of the rest of a group: so many members, so many actions of each, so many characters of an action."""


class EpisodeLog(IterationCallback):
    """Writes sampled training episodes of the first rank to ``episodes.jsonl``; ``sdar episodes RUN`` shows them.

    A line has: ``iteration``, ``task``, ``task_type``, ``description``, ``member``, ``opening``, ``teacher_reads``
    (null if no teacher was scored), ``end``, ``success``, ``return``, ``error``, ``turns``, ``last_observation`` and
    ``group``. A turn has ``text``, ``action``, ``valid``, ``truncated``, ``reward``, ``advantage`` and ``observation``,
    the text before the response. ``preface`` is there where an environment has one: system message and tools as text.

    With ``token_gaps``, and if a teacher was scored, a turn also has one entry for each sampled token in ``tokens``
    (its text), ``student`` and ``teacher`` (log-probs at theta_old, nats, 3 decimals), ``gates`` (3 decimals, as in
    ``curriculum/gate_mean``) and ``gaps`` (teacher minus student, nats, 4 decimals). A figure that is not finite is
    null. That is 45 bytes a token; an episode has figures for its first 4,096 tokens (190 kB), later ones have none.

    ``group`` are the other members that played the same task, as far as they fit: at most 15 of them, each with
    ``member``, ``end``, ``success``, ``return``, ``advantage`` (mean over its turns) and ``actions``, at most 50 of
    at most 120 characters (90 kB).

    A run that only evaluates (``train=false``) writes every episode of its table, with ``evaluation``, the agent's
    name, instead of what only training knows.

    Args:
        directory: directory of the file; None: the trainer's ``default_root_dir``.
        episodes_per_iteration: number of episodes; they are spread over the groups and vary between iterations.
        token_gaps: whether to write the figures of the tokens, if a teacher was scored.
    """

    @checked
    def __init__(
        self, directory: str | Path | None = None, episodes_per_iteration: Count = 2, token_gaps: bool = True
    ) -> None:
        self.directory = directory
        self.episodes_per_iteration = episodes_per_iteration
        self.token_gaps = token_gaps

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Append this iteration's episodes and close the file, so nothing is lost when the run is stopped."""
        if trainer.is_global_zero:
            positions = self._positions(iteration.index, len(iteration.episodes))
            records = (_record(module, iteration, position, figures=self.token_gaps) for position in positions)
            append_lines(trainer, self.directory, FILE_NAME, records)

    def write_evaluation(self, trainer: Trainer, result: EvaluationResult) -> None:
        """Append the episodes of an evaluation."""
        records = ({"evaluation": result.name, **_played(episode)} for episode in result.episodes)
        append_lines(trainer, self.directory, FILE_NAME, records)

    def _positions(self, iteration: int, available: int) -> list[int]:
        """Positions spread evenly over the iteration's episodes, shifted by one from iteration to iteration."""
        count = min(self.episodes_per_iteration, available)
        return sorted({(iteration + i * available // count) % available for i in range(count)})


def _record(module: SDARModule, iteration: Iteration, position: int, *, figures: bool) -> dict[str, Any]:
    """An episode of training, with or without the figures of its tokens."""
    report = module.report
    assert report is not None
    record = _played(iteration.episodes[position])
    advantages = report.prepared.advantages
    for turn, advantage in zip(record["turns"], advantages[position], strict=True):
        turn["advantage"] = round(advantage, 4)
    if figures:
        by_turn = _token_figures(module, report, position)
        record["turns"] = [turn | by_turn.get(number, {}) for number, turn in enumerate(record["turns"])]
    read = report.contexts[position] if report.contexts is not None else None
    group = _group(iteration.episodes, advantages, position)
    return {"iteration": iteration.index, "teacher_reads": read, **record, "group": group}


def _group(episodes: Sequence[Episode], advantages: Sequence[Sequence[float]], position: int) -> list[dict[str, Any]]:
    """The other members of an episode's group, which stand beside it."""
    task = episodes[position].task.task_id
    first, last = position, position + 1
    while first > 0 and episodes[first - 1].task.task_id == task:
        first -= 1
    while last < len(episodes) and episodes[last].task.task_id == task:
        last += 1
    others = [number for number in range(first, last) if number != position]
    return [
        {
            "member": episodes[number].member,
            "end": episodes[number].end.value,
            "success": episodes[number].success,
            "return": episodes[number].episode_return,
            "advantage": round(math.fsum(advantages[number]) / max(len(advantages[number]), 1), 4),
            "actions": [turn.action[:LONGEST_ACTION] for turn in episodes[number].turns[:MOST_ACTIONS]],
        }
        for number in others[:MOST_SIBLINGS]
    ]


def _token_figures(module: SDARModule, report: IterationReport, position: int) -> dict[int, dict[str, Any]]:
    """Turn -> figures of its tokens, in their order; {} if no teacher was scored."""
    batch = report.prepared.batch
    where = batch.response_mask & (batch.episode_index == position)[:, None]
    scores = report.prepared.scored(where)
    if scores is None:
        return {}
    first = slice(MOST_TOKENS)
    columns: dict[str, list[Any]] = {
        "tokens": [module.policy.tokenizer.decode([token]) for token in batch.ids[where][first].tolist()],
        "student": _rounded(scores.student[first], 3),
        "teacher": _rounded(scores.teacher[first], 3),
        "gates": _rounded(report.gate.value(scores)[first], 3),
        "gaps": _rounded(scores.gap[first], 4),
    }
    figures: dict[int, dict[str, Any]] = {}
    for number, turn in enumerate(batch.turn_index[where][first].tolist()):
        own = figures.setdefault(turn, {name: [] for name in columns})
        for name, values in columns.items():
            own[name].append(values[number])
    return figures


def _rounded(values: Tensor, decimals: int) -> list[float | None]:
    """JSON knows no number that is not finite."""
    return [round(value, decimals) if math.isfinite(value) else None for value in values.tolist()]


def _played(episode: Episode) -> dict[str, Any]:
    """What is known of an episode without training."""
    return {
        "task": episode.task.task_id,
        "task_type": episode.task.task_type,
        "description": episode.task.description,
        "member": episode.member,
        **({"preface": as_text(episode.preface)} if episode.preface else {}),
        "opening": episode.opening,
        "end": episode.end.value,
        "success": episode.success,
        "return": episode.episode_return,
        "error": episode.error,
        "turns": [
            {
                "observation": turn.observation.text,
                "text": turn.response_text,
                "action": turn.action,
                "valid": turn.valid,
                "truncated": turn.truncated,
                "reward": turn.reward,
            }
            for turn in episode.turns
        ],
        "last_observation": episode.last_observation.text if episode.last_observation is not None else None,
    }
