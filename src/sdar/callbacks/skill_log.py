"""What the teacher read in every iteration, one JSON object per line."""

from __future__ import annotations

from pathlib import Path

from lightning import Trainer

from sdar.callbacks.base import IterationCallback, append_lines
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule

FILE_NAME = "skills.jsonl"


class SkillLog(IterationCallback):
    """Writes the teacher's record of every iteration to ``skills.jsonl``; the first rank writes for all ranks.

    A line has ``iteration``, the number of ``episodes``, how many of them were ``without_text``, how often each skill
    was ``used`` or ``given_up`` for lack of room, and the record of the strategy (``ucb``: choices and mean reward of
    every skill by task type). Nothing is written if no teacher is scored.

    Args:
        directory: directory of the file; None: the trainer's ``default_root_dir``.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = directory

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Append a line and close the file."""
        report = module.report
        if not trainer.is_global_zero or report is None or not report.record:
            return
        append_lines(trainer, self.directory, FILE_NAME, [{"iteration": iteration.index, **report.record}])
