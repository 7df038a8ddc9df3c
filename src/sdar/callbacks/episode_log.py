"""Readable episodes of every iteration, one JSON object per line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Trainer

from sdar.callbacks.base import IterationCallback, append_lines
from sdar.config.fields import Count, checked
from sdar.episode import Episode
from sdar.evaluation.result import EvaluationResult
from sdar.learning.batch import TokenBatch
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule

FILE_NAME = "episodes.jsonl"


class EpisodeLog(IterationCallback):
    """Writes sampled training episodes of the first rank to ``episodes.jsonl``.

    A line has: ``iteration``, ``task``, ``task_type``, ``description``, ``member``, ``opening``, ``teacher_reads``
    (null if no teacher was scored), ``end``, ``success``, ``return``, ``error``, ``turns`` and ``last_observation``. A
    turn has ``text``, ``action``, ``valid``, ``truncated``, ``reward``, ``advantage`` and ``observation``, the text
    before the response. With ``token_gaps`` it also has ``tokens`` and ``gaps`` (teacher minus student log-prob in
    nats, theta_old): the data of a token heat map.

    A run that only evaluates (``train=false``) writes every episode of its table, with ``evaluation``, the agent's
    name, instead of what only training knows.

    Args:
        directory: directory of the file; None: the trainer's ``default_root_dir``.
        episodes_per_iteration: number of episodes; they are spread over the groups and vary between iterations.
        token_gaps: whether to write the gap of every token, if a teacher was scored.
    """

    @checked
    def __init__(
        self, directory: str | Path | None = None, episodes_per_iteration: Count = 2, token_gaps: bool = False
    ) -> None:
        self.directory = directory
        self.episodes_per_iteration = episodes_per_iteration
        self.token_gaps = token_gaps

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Append this iteration's episodes and close the file, so nothing is lost when the run is stopped."""
        if trainer.is_global_zero:
            positions = self._positions(iteration.index, len(iteration.episodes))
            records = (self._record(module, iteration, position) for position in positions)
            append_lines(trainer, self.directory, FILE_NAME, records)

    def write_evaluation(self, trainer: Trainer, result: EvaluationResult) -> None:
        """Append the episodes of an evaluation."""
        records = ({"evaluation": result.name, **_played(episode)} for episode in result.episodes)
        append_lines(trainer, self.directory, FILE_NAME, records)

    def _positions(self, iteration: int, available: int) -> list[int]:
        """Positions spread evenly over the iteration's episodes, shifted by one from iteration to iteration."""
        count = min(self.episodes_per_iteration, available)
        return sorted({(iteration + i * available // count) % available for i in range(count)})

    def _record(self, module: SDARModule, iteration: Iteration, position: int) -> dict[str, Any]:
        episode: Episode = iteration.episodes[position]
        report = module.report
        assert report is not None
        record = _played(episode)
        for number, (turn, advantage) in enumerate(
            zip(record["turns"], report.prepared.advantages[position], strict=True)
        ):
            turn["advantage"] = round(advantage, 4)
            if self.token_gaps:
                turn |= _gaps(module, report.prepared.batch, position, number)
        read = report.contexts[position] if report.contexts is not None else None
        return {"iteration": iteration.index, "teacher_reads": read, **record}


def _played(episode: Episode) -> dict[str, Any]:
    """What is known of an episode without training."""
    return {
        "task": episode.task.task_id,
        "task_type": episode.task.task_type,
        "description": episode.task.description,
        "member": episode.member,
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


def _gaps(module: SDARModule, batch: TokenBatch, position: int, turn: int) -> dict[str, Any]:
    """Tokens of one turn with their gaps; {} if no teacher was scored."""
    if batch.teacher_log_probs is None or batch.old_log_probs is None:
        return {}
    here = (batch.episode_index == position)[:, None] & (batch.turn_index == turn) & batch.response_mask
    gaps = (batch.teacher_log_probs - batch.old_log_probs)[here].tolist()
    tokens = [module.policy.tokenizer.decode([token]) for token in batch.ids[here].tolist()]
    return {"tokens": tokens, "gaps": [round(gap, 4) for gap in gaps]}
